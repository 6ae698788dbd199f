//! A world for one scenario: pods on a bridge, a ring on three of them, and a mesh around it or none.

use std::{
    collections::BTreeMap,
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ringmail_lab::{
    ca::{Ca, CaSettings, SigningKey},
    ignite::{
        Atomicity, Formation, IgniteNode, IgniteVersion, Installation, LoadShape, NodeSettings, Progress,
        Ring, THIN_PORT, ThinLoad, View,
    },
    mesh::{MeshFiles, shared_temporary_place},
    network::{Network, Pod},
    sidecar::{Sidecar, SidecarSettings},
};

use crate::roots::{self, Root};

/// The pods of the ring.
pub const RING: [&str; 3] = ["n1", "n2", "n3"];

/// The pod of the thin client.
pub const CLIENT: &str = "client";

/// The pod of the CA.
pub const CA: &str = "ca";

/// A pod that is never in the mesh.
pub const STRANGER: &str = "stranger";

/// The service account of every workload unless a scenario says otherwise.
pub const SERVICE_ACCOUNT: &str = "ignite";

/// Keys that a scenario fills and counts afterwards.
pub const KEYS: u64 = 5_000;

/// The cache of a scenario, with one backup.
pub const CACHE: &str = "keys";

/// What a root is called that signs from the start.
pub(crate) const FIRST_ROOT: &str = "first root";

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Which pods have a sidecar from the start.
    pub meshed: Vec<&'static str>,
    /// What the CA is told.
    pub ca: CaSettings,
    /// What every sidecar is told.
    pub sidecar: SidecarSettings,
    /// Whether nodes keep Ignite's own settings for what they bind: every address, the first free port of a range.
    pub bind_all: bool,
    /// The mesh's mode for every port; `None` leaves PERMISSIVE.
    pub strict: bool,
}

impl Shape {
    /// The ring and its client in a STRICT mesh.
    pub fn strict() -> Self {
        let mut meshed = RING.to_vec();
        meshed.push(CLIENT);
        let sidecar = SidecarSettings::new(SERVICE_ACCOUNT);
        Self { meshed, ca: CaSettings::default(), sidecar, bind_all: false, strict: true }
    }

    /// Nobody in a mesh.
    pub fn plain() -> Self {
        Self { meshed: Vec::new(), strict: false, ..Self::strict() }
    }

    /// The same with one more setting of every proxy.
    #[must_use]
    pub fn with(mut self, key: &str, yaml: &str) -> Self {
        self.sidecar = self.sidecar.with(key, yaml);
        self
    }

    /// The same with one more flag of every `ringmail-init`.
    #[must_use]
    pub fn with_init(mut self, flag: &str) -> Self {
        self.sidecar.init_flags.push(flag.to_owned());
        self
    }

    /// The same with a CA whose signing key is mounted, so that it can be rotated.
    #[must_use]
    pub fn with_mounted_root(mut self) -> Self {
        self.ca.key = SigningKey::Mounted;
        self
    }

    /// The same with more flags of the CA.
    #[must_use]
    pub fn with_ca(mut self, flags: &[&'static str]) -> Self {
        self.ca.flags.extend(flags);
        self
    }
}

/// A world; dropping it ends every process and removes every namespace.
#[derive(Debug)]
pub struct World {
    /// The ring, once it was formed. First, so that nodes end before their sidecars.
    pub ring: Option<Ring>,
    /// The sidecars by pod.
    pub sidecars: BTreeMap<String, Sidecar>,
    /// The CA, where there is a mesh.
    pub ca: Option<Ca>,
    /// What signed first, where the CA's key is mounted.
    pub first_root: Option<Root>,
    /// The mesh's files.
    pub files: MeshFiles,
    /// The pods.
    pub network: Network,
    /// What the sidecars were told.
    pub shape: Shape,
    installation: Installation,
    folder: PathBuf,
}

impl World {
    /// Makes the pods, the CA and the sidecars of `shape`, all ready, and no ring yet.
    pub fn new(version: IgniteVersion, shape: Shape) -> Result<Self> {
        let folder = scenario_folder()?;
        let installation = Installation::prepare(version)?;
        let network = Network::create(&["n1", "n2", "n3", CLIENT, CA, STRANGER])?;
        let files = MeshFiles::create(&folder.join("mesh"), None)?;
        let mut first_root = None;
        if shape.strict {
            files.write_policy("strict", STRICT)?;
        }
        if shape.ca.key == SigningKey::Mounted {
            let first = Root::new(FIRST_ROOT)?;
            first.mount(&files)?;
            roots::trust(&files, &[&first])?;
            first_root = Some(first);
        }
        let ca = Ca::start(&network, CA, &files, &shape.ca, &folder)?;
        let mut world = Self {
            ring: None,
            sidecars: BTreeMap::new(),
            ca: Some(ca),
            first_root,
            files,
            network,
            shape: shape.clone(),
            installation,
            folder,
        };
        for name in RING.iter().chain(&[CLIENT]).filter(|name| !shape.meshed.contains(*name)) {
            world.files.announce(world.network.pod(name)?, SERVICE_ACCOUNT, false)?;
        }
        for name in &shape.meshed {
            world.start_sidecar(name)?;
        }
        for name in &shape.meshed {
            world.wait_ready(name)?;
        }
        Ok(world)
    }

    /// A world whose ring of three is whole.
    pub fn with_ring(version: IgniteVersion, shape: Shape) -> Result<Self> {
        let mut world = Self::new(version, shape)?;
        world.form(&RING, Formation::AtOnce)?;
        Ok(world)
    }

    /// Where logs go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The pod of this name.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.network.pod(name)
    }

    /// Forms the ring on these pods, each with the address list of all three, and waits until each node
    /// sees all that were started; the time it took.
    pub fn form(&mut self, names: &[&str], formation: Formation) -> Result<Duration> {
        self.form_listing(names, formation, &RING)
    }

    /// The same with an address list of one's own.
    pub fn form_listing(
        &mut self,
        names: &[&str],
        formation: Formation,
        listed: &[&str],
    ) -> Result<Duration> {
        let pods = |names: &[&str]| -> Result<Vec<&Pod>> {
            names.iter().map(|name| self.network.pod(name)).collect()
        };
        let (pods, listed) = (pods(names)?, pods(listed)?);
        let settings = NodeSettings { bind_all: self.shape.bind_all, ..NodeSettings::new(listed) };
        let ring = Ring::form_with(&self.installation, &pods, formation, settings, &self.folder)?;
        let formed_in = ring.formed_in();
        self.ring = Some(ring);
        Ok(formed_in)
    }

    /// The ring.
    pub fn ring(&mut self) -> &mut Ring {
        #[expect(clippy::expect_used, reason = "a scenario that asks for the ring has formed it")]
        self.ring.as_mut().expect("the scenario formed a ring")
    }

    /// Starts the node of this pod again, without waiting.
    pub fn restart_node(&mut self, name: &str) -> Result<()> {
        let pod = self.network.pod(name)?;
        self.ring.as_mut().context("no ring")?.start_node(pod)
    }

    /// Starts the CA again after it has ended, and waits until it is ready.
    pub fn restart_ca(&mut self) -> Result<()> {
        self.ca = Some(Ca::start(&self.network, CA, &self.files, &self.shape.ca, &self.folder)?);
        Ok(())
    }

    /// Starts a sidecar with the world's settings, without waiting.
    pub fn start_sidecar(&mut self, name: &str) -> Result<()> {
        let settings = self.shape.sidecar.clone();
        self.start_sidecar_as(name, &settings)
    }

    /// Starts a sidecar with settings of its own, without waiting.
    pub fn start_sidecar_as(&mut self, name: &str, settings: &SidecarSettings) -> Result<()> {
        let pod = self.network.pod(name)?;
        let ca = self.ca.as_ref().context("no CA")?;
        let sidecar = Sidecar::start(pod, &self.files, ca, settings, &self.folder)?;
        self.sidecars.insert(name.to_owned(), sidecar);
        Ok(())
    }

    /// Waits until the sidecar of this pod is ready.
    pub fn wait_ready(&mut self, name: &str) -> Result<()> {
        let pod = self.network.pod(name)?;
        self.sidecars.get_mut(name).context("no such sidecar")?.wait_ready(pod)
    }

    /// The sidecar of this pod.
    pub fn sidecar(&mut self, name: &str) -> Result<&mut Sidecar> {
        self.sidecars.get_mut(name).with_context(|| format!("no sidecar in {name}"))
    }

    /// Starts the proxy of a sidecar again after it has ended.
    pub fn restart_proxy(&mut self, name: &str) -> Result<()> {
        let pod = self.network.pod(name)?;
        self.sidecars.get_mut(name).context("no such sidecar")?.start_proxy(pod)
    }

    /// A node in the stranger's pod that has every node of the ring in its address list, and what it sees
    /// when it is part of whatever ring would have it. It ends before this returns.
    pub fn start_stranger_node(&self) -> Result<View> {
        let stranger = self.network.pod(STRANGER)?;
        let mut known: Vec<&Pod> = RING.iter().map(|name| self.network.pod(name)).collect::<Result<_>>()?;
        known.push(stranger);
        let settings = NodeSettings::new(known);
        let node = IgniteNode::start(&self.installation, stranger, &settings, &self.folder)?;
        node.wait_started()?;
        node.view()
    }

    /// A thin client in the client's pod, connected to every node, with the cache filled and the load running.
    pub fn load(&self) -> Result<ThinLoad> {
        let load = self.client()?;
        load.create_cache(CACHE, 1, Atomicity::Atomic)?;
        load.fill(CACHE, KEYS, 100)?;
        load.run(CACHE, LoadShape::default())?;
        Ok(load)
    }

    /// A thin client in the client's pod, connected to every node.
    pub fn client(&self) -> Result<ThinLoad> {
        let load = ThinLoad::start(&self.installation, self.network.pod(CLIENT)?, &self.folder)?;
        let addresses: Vec<SocketAddr> = RING
            .iter()
            .map(|name| Ok(SocketAddr::new(self.network.pod(name)?.ip(), THIN_PORT)))
            .collect::<Result<_>>()?;
        load.connect(&addresses, true)?;
        Ok(load)
    }
}

/// The policy that makes the whole mesh STRICT.
pub const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// Ends the load and proves that nothing was lost: no key, no acknowledged write, and `errors` failed
/// operations at most.
pub fn nothing_lost(load: &ThinLoad, errors: u64) -> Result<Progress> {
    let progress = load.halt()?;
    ensure!(progress.operations > 0, "the load did nothing: {progress:?}");
    ensure!(progress.errors <= errors, "at most {errors} operations may fail: {progress:?}");
    ensure!(progress.stale == 0, "a get showed less than an acknowledged put: {progress:?}");
    for verified in [load.check()?, load.verify(CACHE, KEYS)?] {
        ensure!(verified.found > 0 && verified.lost == 0 && verified.corrupt == 0, "keys: {verified:?}");
    }
    Ok(progress)
}

/// Whether the long scenarios and both Ignite versions are asked for.
pub fn nightly() -> bool {
    ringmail_evidence::nightly()
}

/// The Ignite versions to run a scenario on: the one that `RINGMAIL_IGNITE` names, both by night, the newer one
/// otherwise.
pub fn versions() -> Vec<IgniteVersion> {
    let all = [IgniteVersion::V2_16, IgniteVersion::V2_17];
    match std::env::var("RINGMAIL_IGNITE") {
        Ok(named) => {
            let chosen: Vec<_> = all.into_iter().filter(|version| version.as_str() == named).collect();
            assert!(!chosen.is_empty(), "RINGMAIL_IGNITE={named:?}: expected 2.16.0 or 2.17.0");
            chosen
        }
        Err(_) if nightly() => all.to_vec(),
        Err(_) => vec![IgniteVersion::V2_17],
    }
}

/// A folder of its own for a scenario's logs, open to the proxy's user. It is kept when the scenario
/// fails, so that its logs can be read.
pub fn scenario_folder() -> Result<PathBuf> {
    let base = shared_temporary_place()?.join("ringmail-e2e");
    std::fs::create_dir_all(&base)?;
    let folder = tempfile::Builder::new().prefix("scenario-").tempdir_in(&base)?.keep();
    for folder in [&base, &folder] {
        std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    Ok(folder)
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("logs of the failed scenario: {}", self.folder.display());
        } else {
            // What is left of a scenario that held is of no use, and a leftover folder harms nothing.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
