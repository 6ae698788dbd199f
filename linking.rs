//! How a program is linked: with the unwinder of GCC inside, so that it needs no shared library besides glibc's, and with
//! its relative relocations packed, which makes a program that can stand anywhere in memory 4 % smaller. A program that is
//! built as a later version (the feature `next-schema`) says so wherever it says its version.
//!
//! The standard library asks the linker for `gcc_s`. A linker script of that name, found before the
//! compiler's own, answers with the static `libgcc_eh` that every GCC brings.

use std::{env, fs, io, path::Path};

// What packs relocations; glibc knows the form since 2.36, which is Debian 12's.
const PACKED: &str = "-Wl,-z,pack-relative-relocs";

const SCRIPT: &str = "INPUT(-l:libgcc_eh.a)\n";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=../linking.rs");
    if env::var_os("CARGO_FEATURE_NEXT_SCHEMA").is_some() {
        let version = env::var("CARGO_PKG_VERSION").map_err(io::Error::other)?;
        println!("cargo:rustc-env=CARGO_PKG_VERSION={version}-next");
    }
    // Other C libraries bring unwinders of their own.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux")
        || env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("gnu")
    {
        return Ok(());
    }
    let folder = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&folder).join("libgcc_s.so"), SCRIPT)?;
    println!("cargo:rustc-link-search=native={folder}");
    println!("cargo:rustc-link-arg-bins={PACKED}");
    Ok(())
}
