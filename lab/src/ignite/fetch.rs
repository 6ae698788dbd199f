//! One installation per Ignite version, in a cache folder: the jars from Maven Central, the lab's own classes, and the archive
//! of loaded classes that halves the start of a JVM.
//!
//! Each step is done once: its result is made under a temporary name and renamed, under a lock, so that a killed run leaves
//! nothing half made and two runs at once make it together.

use std::fmt;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::SigSet;

use super::jvm::JVM_FLAGS;
use crate::netns::{Namespace, panic_again};

/// Names the cache folder; without it, `~/.cache/ringmail`.
const CACHE_VARIABLE: &str = "RINGMAIL_CACHE";

/// The plugin is pinned, so that a fetch does the same on every machine.
const COPY_DEPENDENCIES: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

/// The lab's own Java program, by file name.
const SOURCES: [(&str, &str); 9] = [
    ("Control.java", include_str!("../../java/ringmail/lab/Control.java")),
    ("ContinuousLoad.java", include_str!("../../java/ringmail/lab/ContinuousLoad.java")),
    ("Load.java", include_str!("../../java/ringmail/lab/Load.java")),
    ("Measure.java", include_str!("../../java/ringmail/lab/Measure.java")),
    ("Node.java", include_str!("../../java/ringmail/lab/Node.java")),
    ("Recovery.java", include_str!("../../java/ringmail/lab/Recovery.java")),
    ("Tls.java", include_str!("../../java/ringmail/lab/Tls.java")),
    ("Train.java", include_str!("../../java/ringmail/lab/Train.java")),
    ("Value.java", include_str!("../../java/ringmail/lab/Value.java")),
];

/// The releases of Ignite that the lab runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgniteVersion {
    /// 2.16.0: its ring checks a neighbour backwards by a bare connect.
    V2_16,
    /// 2.17.0: its ring checks a neighbour backwards by its own protocol.
    V2_17,
}

impl IgniteVersion {
    /// Every release, oldest first.
    pub const ALL: [Self; 2] = [Self::V2_16, Self::V2_17];

    /// The number that Maven knows it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2_16 => "2.16.0",
            Self::V2_17 => "2.17.0",
        }
    }
}

impl fmt::Display for IgniteVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IgniteVersion {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .with_context(|| format!("ignite version {text:?}: expected 2.16.0 or 2.17.0"))
    }
}

/// A version that is ready to run.
#[derive(Clone, Debug)]
pub struct Installation {
    version: IgniteVersion,
    classpath: String,
    archive: PathBuf,
}

impl Installation {
    /// Makes what is missing: fetches the jars (needs `mvn` and the network, the first time), compiles the lab's program (needs
    /// `javac`), and archives the classes (needs root). A second call takes milliseconds.
    pub fn prepare(version: IgniteVersion) -> Result<Self> {
        let folder = cache_folder()?.join(format!("ignite-{version}"));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let lock = File::create(folder.join("lock")).context("open the lock of the cache")?;
        lock.lock().context("lock the cache")?;

        let libraries = folder.join("lib");
        make_once(&libraries, |partial| fetch(version, partial))
            .context("fetch ignite from maven central")?;
        let program = folder.join(format!("lab-{}", fingerprint()?));
        make_once(&program, |partial| compile(&libraries, partial))
            .context("compile the lab's java program")?;
        let installation = Self {
            version,
            classpath: classpath(&libraries, &program.join("lab.jar"))?,
            archive: program.join("classes.jsa"),
        };
        make_once(&installation.archive, |partial| installation.train(partial))
            .context("archive the classes")?;
        Ok(installation)
    }

    /// The version of Ignite.
    pub fn version(&self) -> IgniteVersion {
        self.version
    }

    /// A JVM that runs one of the lab's programs.
    pub(super) fn java(&self, program: &str, flags: &[String]) -> Command {
        let mut command = Command::new("java");
        command
            .args(JVM_FLAGS)
            .arg("-Xshare:auto")
            .arg(format!("-XX:SharedArchiveFile={}", self.archive.display()))
            .args(flags)
            .args(["-cp", &self.classpath])
            .arg(format!("ringmail.lab.{program}"));
        command
    }

    /// Runs the rehearsal, at whose exit the JVM writes the classes it has loaded.
    fn train(&self, archive: &Path) -> Result<()> {
        let namespace = Namespace::create("train")?;
        let work = archive.with_extension("work");
        let mut command = Command::new("java");
        command
            .args(JVM_FLAGS)
            .arg("-Djava.net.preferIPv4Stack=true")
            .arg("-Xlog:cds=off")
            .arg("-Xlog:cds+dynamic=off")
            .arg(format!("-XX:ArchiveClassesAtExit={}", archive.display()))
            .args(["-cp", &self.classpath])
            .arg("ringmail.lab.Train")
            .arg(format!("work={}", work.display()));
        namespace.enter(|| run(&mut command))??;
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))
    }
}

fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(CACHE_VARIABLE) {
        return Ok(folder.into());
    }
    let home =
        std::env::var_os("HOME").with_context(|| format!("neither {CACHE_VARIABLE} nor HOME is set"))?;
    Ok(Path::new(&home).join(".cache/ringmail"))
}

/// Has `make` produce a file or folder under a temporary name, then gives it its own.
fn make_once(target: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    let partial = target.with_extension("partial");
    if partial.is_dir() {
        fs::remove_dir_all(&partial)?;
    } else if partial.exists() {
        fs::remove_file(&partial)?;
    }
    make(&partial)?;
    fs::rename(&partial, target).with_context(|| format!("rename {} into place", partial.display()))
}

fn fetch(version: IgniteVersion, libraries: &Path) -> Result<()> {
    fs::create_dir_all(libraries)?;
    let pom = libraries.join("pom.xml");
    let dependency = |artifact: &str| {
        format!(
            "<dependency><groupId>org.apache.ignite</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    let text = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>ringmail</groupId><artifactId>lab</artifactId><version>1</version>\
         <dependencies>{}{}</dependencies></project>\n",
        dependency("ignite-core"),
        dependency("ignite-rest-http")
    );
    fs::write(&pom, text)?;
    run(Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg(COPY_DEPENDENCIES)
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", libraries.display())))
}

fn compile(libraries: &Path, program: &Path) -> Result<()> {
    let sources = program.join("src");
    let classes = program.join("classes");
    fs::create_dir_all(&sources)?;
    let mut javac = Command::new("javac");
    javac.args(["--release", "17", "-cp"]).arg(libraries.join("*")).arg("-d").arg(&classes);
    for (name, text) in SOURCES {
        let file = sources.join(name);
        fs::write(&file, text)?;
        javac.arg(file);
    }
    run(&mut javac)?;
    // A jar, because a class archive takes no folder on its class path.
    run(Command::new("jar").arg("cf").arg(program.join("lab.jar")).arg("-C").arg(&classes).arg("."))
}

/// Tells one program and JVM from another: an archive of classes serves the pair it was made by.
fn fingerprint() -> Result<String> {
    let output = Command::new("java").arg("-version").output().context("start java -version")?;
    let mut hasher = DefaultHasher::new();
    (SOURCES, JVM_FLAGS, output.stderr).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// The jars by name and in order: an archive of classes is refused for any other class path.
fn classpath(libraries: &Path, program: &Path) -> Result<String> {
    let mut jars = Vec::new();
    for entry in fs::read_dir(libraries).with_context(|| format!("list {}", libraries.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jar") {
            jars.push(path.display().to_string());
        }
    }
    jars.sort();
    jars.push(program.display().to_string());
    Ok(jars.join(":"))
}

fn run(command: &mut Command) -> Result<()> {
    // On a thread that blocks no signal: the long ones may be interrupted.
    let output = thread::scope(|scope| {
        let run = scope.spawn(|| {
            SigSet::empty().thread_set_mask()?;
            command.output()
        });
        run.join().unwrap_or_else(|panic| panic_again(&*panic))
    });
    let output = output.with_context(|| format!("start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!(
            "{:?} ended with {}:\n{}{}",
            command.get_program(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
