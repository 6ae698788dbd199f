//! Key stores for Ignite's own TLS, made as its users make them: by `keytool`, P-256, each identity signed by one root, which
//! is all that is trusted.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Opens every store of the lab. It guards nothing: the stores live as long as a run, in its folder.
const PASSWORD: &str = "laboratory";

/// The entry of the root while an identity is signed with it.
const ROOT: &str = "root";

/// What one JVM shows and trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStores {
    identity: PathBuf,
    trust: PathBuf,
}

impl KeyStores {
    /// Makes an identity of its own for each name, all of one new root. The stores go to `folder`, which is made.
    pub fn create<const N: usize>(folder: &Path, names: [&str; N]) -> Result<[Self; N]> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let (root, trust) = (folder.join("root.p12"), folder.join("trust.p12"));
        let certificate = folder.join("root.pem");
        generate(&root, ROOT, &["-ext", "bc:c=ca:true", "-ext", "ku:c=keyCertSign"])?;
        keytool(&root, ["-exportcert", "-rfc", "-alias", ROOT, "-file"], Some(&certificate))?;
        keytool(&trust, ["-importcert", "-noprompt", "-alias", ROOT, "-file"], Some(&certificate))?;
        let stores =
            names.map(|name| Self { identity: folder.join(format!("{name}.p12")), trust: trust.clone() });
        for (store, name) in stores.iter().zip(names) {
            // The key that signs must be in the same store; it does not stay there.
            fs::copy(&root, &store.identity).context("copy the root's key store")?;
            generate(&store.identity, name, &["-signer", ROOT])?;
            keytool(&store.identity, ["-delete", "-alias", ROOT], None)?;
        }
        Ok(stores)
    }

    /// What the lab's Java programs are told.
    pub(super) fn arguments(&self) -> Vec<String> {
        vec![
            format!("keystore={}", self.identity.display()),
            format!("truststore={}", self.trust.display()),
            format!("password={PASSWORD}"),
        ]
    }
}

fn generate(store: &Path, alias: &str, further: &[&str]) -> Result<()> {
    let name = format!("CN={alias}");
    let mut arguments = vec!["-genkeypair", "-alias", alias, "-dname", &name];
    arguments.extend(["-keyalg", "EC", "-groupname", "secp256r1", "-sigalg", "SHA256withECDSA"]);
    arguments.extend(further);
    keytool(store, arguments, None)
}

fn keytool<'a>(
    store: &Path,
    arguments: impl IntoIterator<Item = &'a str>,
    file: Option<&Path>,
) -> Result<()> {
    let mut command = Command::new("keytool");
    command
        .args(arguments)
        .args(file.map(Path::as_os_str))
        .args([OsStr::new("-keystore"), store.as_os_str()])
        .args(["-storetype", "PKCS12", "-storepass", PASSWORD]);
    let output = command.output().context("start keytool: it comes with java")?;
    ensure!(
        output.status.success(),
        "keytool on {} ended with {}: {}",
        store.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout).trim_end()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_signed_by_the_root_whose_key_is_not_in_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let [node, _client] = KeyStores::create(folder.path(), ["node", "client"]).unwrap();
        let output = Command::new("keytool")
            .args(["-list", "-v", "-storepass", PASSWORD, "-keystore"])
            .arg(&node.identity)
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&output.stdout);
        assert!(listed.contains("contains 1 entry"), "{listed}");
        assert!(listed.contains("Issuer: CN=root") && listed.contains("Owner: CN=node"), "{listed}");
        assert!(listed.contains("256-bit EC (secp256r1) key"), "{listed}");
    }
}
