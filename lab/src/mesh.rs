//! What a mesh in the lab keeps in files: its programs, its tokens, its root, its policies and who answers at which address.
//!
//! One folder serves all sidecars of a network, as one control plane serves a cluster. Everything in it is replaced whole, so
//! that nobody ever reads half of a file.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::network::Pod;

/// Names the folder with the programs; without it they are looked for beside the running one.
const PROGRAMS_VARIABLE: &str = "RINGMAIL_PROGRAMS";

/// The programs that make a mesh.
const PROGRAMS: [&str; 3] = ["ringmail-ca", "ringmail-init", "ringmail-proxy"];

/// The namespace, in the sense of Kubernetes, of the workloads of the lab.
pub const WORKLOAD_NAMESPACE: &str = "ignite";

/// The files of one mesh.
#[derive(Debug)]
pub struct MeshFiles {
    folder: PathBuf,
    tokens: Mutex<Vec<String>>,
}

impl MeshFiles {
    /// Makes the folder's parts and copies the programs into it, from `programs` or from where [`find_programs`] finds them:
    /// the proxy's user may not be able to reach them where they were built. The folder becomes readable for everyone.
    pub fn create(folder: &Path, programs: Option<&Path>) -> Result<Self> {
        let files = Self { folder: folder.to_owned(), tokens: Mutex::new(Vec::new()) };
        for part in [files.folder.clone(), files.policies(), files.folder.join("programs")] {
            fs::create_dir_all(&part).with_context(|| format!("make {}", part.display()))?;
            fs::set_permissions(&part, Permissions::from_mode(0o755))?;
        }
        let closed = folder.ancestors().skip(1).find(|above| is_closed(above));
        if let Some(closed) = closed {
            bail!(
                "{} is closed to others: the proxy's user cannot reach {}",
                closed.display(),
                folder.display()
            );
        }
        let found = programs.map_or_else(find_programs, |folder| Ok(folder.to_owned()))?;
        for name in PROGRAMS {
            let from = found.join(name);
            fs::copy(&from, files.program(name)).with_context(|| {
                format!(
                    "copy {}: build it (cargo build --workspace, with --release for a release)",
                    from.display()
                )
            })?;
        }
        write_whole(&files.tokens_file(), "[]\n")?;
        Ok(files)
    }

    /// A program of the mesh.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("programs").join(name)
    }

    /// The folder that every sidecar watches for policies and workloads.
    pub fn policies(&self) -> PathBuf {
        self.folder.join("policy")
    }

    /// The tokens that the CA knows.
    pub fn tokens_file(&self) -> PathBuf {
        self.folder.join("tokens.yaml")
    }

    /// The bundle that the CA publishes and every sidecar reads.
    pub fn bundle_file(&self) -> PathBuf {
        self.folder.join("root-cert.pem")
    }

    /// The state folder of the CA.
    pub fn ca_state(&self) -> PathBuf {
        self.folder.join("ca")
    }

    /// The folder of a signing key that others than the CA fill, as a mounted Secret.
    pub fn ca_mount(&self) -> PathBuf {
        self.folder.join("cacerts")
    }

    /// The roots that the bundle carries beside the signing key's own.
    pub fn extra_roots(&self) -> PathBuf {
        self.folder.join("extra-roots.pem")
    }

    /// A file of this name in the folder, for what belongs to one pod.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Gives a pod a token for a service account of [`WORKLOAD_NAMESPACE`] and returns the token's file.
    pub fn grant_token(&self, pod: &Pod, service_account: &str) -> Result<PathBuf> {
        let token = format!("lab-token-of-{}-as-{service_account}", pod.name());
        let file = self.file(&format!("{}.token", pod.name()));
        write_whole(&file, &token)?;
        let line = format!(
            "- {{token: {token}, namespace: {WORKLOAD_NAMESPACE}, service_account: {service_account}}}\n"
        );
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if !tokens.contains(&line) {
            tokens.push(line);
        }
        write_whole(&self.tokens_file(), &tokens.concat())?;
        Ok(file)
    }

    /// Says who answers at a pod's addresses, and whether a sidecar does.
    pub fn announce(&self, pod: &Pod, service_account: &str, in_mesh: bool) -> Result<()> {
        let mode = if in_mesh { "istio" } else { "disabled" };
        let entry = |suffix: &str, address: String| {
            format!(
                "---\n\
                 apiVersion: networking.istio.io/v1\n\
                 kind: WorkloadEntry\n\
                 metadata: {{name: {name}{suffix}, namespace: {WORKLOAD_NAMESPACE}}}\n\
                 spec:\n  \
                   address: '{address}'\n  \
                   serviceAccount: {service_account}\n  \
                   labels: {{app: {name}, service.istio.io/workload-name: {name}, security.istio.io/tlsMode: {mode}}}\n",
                name = pod.name()
            )
        };
        let text = entry("", pod.ip().to_string()) + &entry("-v6", pod.ipv6().to_string());
        self.write_policy(&format!("workload-{}", pod.name()), &text)
    }

    /// Writes or replaces `<name>.yaml` among the policies.
    pub fn write_policy(&self, name: &str, yaml: &str) -> Result<()> {
        write_whole(&self.policies().join(format!("{name}.yaml")), yaml)
    }

    /// Removes `<name>.yaml` from the policies.
    pub fn remove_policy(&self, name: &str) -> Result<()> {
        let file = self.policies().join(format!("{name}.yaml"));
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
    }
}

/// The folder that holds the programs: the one that is named by the environment, else the one of the running program, else,
/// for a test, the one above it.
pub fn find_programs() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(PROGRAMS_VARIABLE) {
        return Ok(folder.into());
    }
    let running = std::env::current_exe().context("find the running program")?;
    running
        .ancestors()
        .skip(1)
        .take(2)
        .find(|folder| PROGRAMS.iter().all(|name| folder.join(name).exists()))
        .map(Path::to_owned)
        .with_context(|| {
            format!(
                "{} are not beside {}: build them too (cargo build --workspace, with --release for a release)",
                PROGRAMS.join(", "),
                running.display()
            )
        })
}

/// Where temporary folders can be made that every user reaches: the system's place for them, or, where that is one
/// user's own, one of the places that are everybody's.
pub fn shared_temporary_place() -> Result<PathBuf> {
    first_shared(&[std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")])
}

fn first_shared(places: &[PathBuf]) -> Result<PathBuf> {
    let reachable = |place: &PathBuf| place.is_dir() && !place.ancestors().any(is_closed);
    places.iter().find(|place| reachable(place)).cloned().with_context(|| {
        format!("{places:?}: expected one that every user may pass through, for the proxy runs as another")
    })
}

/// Whether others may not pass through a folder.
fn is_closed(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0)
}

/// Replaces a file by a rename, readable for everyone.
pub(crate) fn write_whole(file: &Path, text: &str) -> Result<()> {
    let partial = file.with_extension("partial");
    fs::write(&partial, text).with_context(|| format!("write {}", partial.display()))?;
    fs::set_permissions(&partial, Permissions::from_mode(0o644))?;
    fs::rename(&partial, file).with_context(|| format!("rename {} into place", partial.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Network;

    fn files(folder: &Path) -> MeshFiles {
        let programs = folder.join("built");
        fs::create_dir(&programs).unwrap();
        for name in PROGRAMS {
            fs::write(programs.join(name), "program").unwrap();
        }
        MeshFiles::create(folder, Some(&programs)).unwrap()
    }

    #[test]
    fn a_token_is_granted_once_and_a_workload_is_announced_at_both_its_addresses() {
        let folder = tempfile::tempdir_in(shared_temporary_place().unwrap()).unwrap();
        let network = Network::create(&["n1"]).unwrap();
        let pod = network.pod("n1").unwrap();
        let files = files(folder.path());
        for _ in 0..2 {
            let token = files.grant_token(pod, "ignite").unwrap();
            assert_eq!(fs::read_to_string(token).unwrap(), "lab-token-of-n1-as-ignite");
        }
        let known = fs::read_to_string(files.tokens_file()).unwrap();
        assert_eq!(
            known,
            "- {token: lab-token-of-n1-as-ignite, namespace: ignite, service_account: ignite}\n"
        );
        files.announce(pod, "ignite", true).unwrap();
        let text = fs::read_to_string(files.policies().join("workload-n1.yaml")).unwrap();
        assert!(text.contains("address: '10.77.0.1'") && text.contains("address: 'fd77::1'"), "{text}");
        assert!(text.contains("\n  labels: {app: n1,"), "{text}");
        files.remove_policy("workload-n1").unwrap();
        assert!(files.remove_policy("workload-n1").unwrap_err().to_string().contains("workload-n1.yaml"));
    }

    #[test]
    fn a_missing_program_is_named_with_the_command_that_builds_it() {
        let folder = tempfile::tempdir_in(shared_temporary_place().unwrap()).unwrap();
        let error =
            MeshFiles::create(folder.path(), Some(&folder.path().join("none"))).unwrap_err().to_string();
        assert!(error.contains("ringmail-ca") && error.contains("cargo build"), "{error}");
    }

    #[test]
    fn a_folder_that_the_proxy_cannot_reach_is_refused() {
        let folder = tempfile::tempdir_in(shared_temporary_place().unwrap()).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let error = MeshFiles::create(&folder.path().join("mesh"), None).unwrap_err().to_string();
        assert!(error.contains("is closed to others"), "{error}");
    }

    #[test]
    fn a_temporary_place_of_one_user_s_own_is_passed_over() {
        let place = tempfile::tempdir_in(shared_temporary_place().unwrap()).unwrap();
        let (own, shared) = (place.path().to_owned(), PathBuf::from("/tmp"));
        let inside = own.join("inside");
        fs::create_dir(&inside).unwrap();
        fs::set_permissions(&own, Permissions::from_mode(0o700)).unwrap();
        let missing = PathBuf::from("/no/such/place");
        assert_eq!(first_shared(&[missing.clone(), inside.clone(), own, shared.clone()]).unwrap(), shared);
        let error = first_shared(&[missing, inside]).unwrap_err().to_string();
        assert!(error.contains("/no/such/place") && error.contains("every user"), "{error}");
    }
}
