#!/usr/bin/env bash
# Prints the bill of materials of a program, CycloneDX 1.5: every crate that is linked into it, with version, licence and checksum.
#   scripts/sbom.sh PROGRAM   ringmail-proxy, ringmail-ca, ringmail-control, ringmail-init or ringmail (the command line)
# The same sources give the same bytes.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

program=${1:?needs the name of a program}
# The tree is that of the package alone, as a release is built: others of the workspace would add their features.
tree=$(cargo tree --locked --package "$program" --edges normal --prefix none --no-dedupe --format '{p}|{l}' |
    sed -E 's/ \(.*\)\|/|/; s/ \(proc-macro\)//' | sort -u)
python3 - "$program" Cargo.lock 3<<<"$tree" <<'END'
import json, os, re, sys, tomllib

program, lock = sys.argv[1:]
with open(lock, "rb") as file:
    locked = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(file)["package"]}
components, own = [], None
for line in os.fdopen(3).read().splitlines():
    crate, licence = line.split("|")
    name, version = crate.split(" v")
    if not licence:
        sys.exit(f"sbom.sh: {crate} names no licence")
    checksum = locked[name, version]
    component = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        "licenses": [{"expression": re.sub(r"\s*/\s*", " OR ", licence)}],
        "purl": f"pkg:cargo/{name}@{version}",
    }
    if checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    elif not name.startswith("ringmail"):
        sys.exit(f"sbom.sh: {crate} is neither of the registry nor of this workspace")
    components.append(component)
if not any("hashes" in component for component in components):
    sys.exit(f"sbom.sh: {program} has no components")
version = next(c["version"] for c in components if c["name"] == program)
json.dump(
    {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": program, "name": program, "version": version}},
        "components": components,
    },
    sys.stdout,
    indent=1,
)
print()
END
