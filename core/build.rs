//! Sets `cfg(processor)`, by which `simd/portable/mod.rs` chooses the module of a target without vectors, and
//! `cfg(fused)`, if such a target has a fused multiply-add for `simd/portable/fused.rs`. The target's name tells whether
//! it has a floating-point unit; stable `cfg(target_feature)` does not, neither for Arm nor for RISC-V.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(fused)");
    println!("cargo::rustc-check-cfg=cfg(processor, values(\"thumb\", \"riscv\"))");
    let target = var("TARGET").unwrap_or_default();
    let (processor, rest) = target.split_once('-').unwrap_or_default();
    let thumb = matches!(processor, "thumbv7em" | "thumbv8m.main") && rest.ends_with("eabihf");
    let single = |extensions: &str| extensions.split('_').next().is_some_and(|e| e.contains(['f', 'g']));
    // The kernels need 32-bit pointers.
    let riscv = processor.strip_prefix("riscv32").is_some_and(single);
    if thumb {
        println!("cargo::rustc-cfg=processor=\"thumb\"");
    } else if riscv {
        println!("cargo::rustc-cfg=processor=\"riscv\"");
    }

    let fused = match processor {
        "s390x" => true,
        "loongarch64" => !rest.ends_with("softfloat"),
        "powerpc64" | "powerpc64le" => rustc_minor() >= 95,
        _ if processor.starts_with("armv7") => rest.ends_with("hf") && flags_have_vfp4(),
        _ => processor.strip_prefix("riscv64").is_some_and(single),
    };
    if fused {
        println!("cargo::rustc-cfg=fused");
    }
}

/// The 95 of Rust 1.95, the first with inline assembly for PowerPC; 0 if it is not known.
fn rustc_minor() -> u32 {
    let output = std::process::Command::new(var("RUSTC").unwrap_or_default()).arg("--version").output();
    let version =
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

/// Whether the compiler was told that a 32-bit Arm processor has the fourth version of the floating-point unit. Of the
/// Cortex-A, only the A8 and the A9 do not have it.
fn flags_have_vfp4() -> bool {
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let flags = var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let older = ["cortex-a8", "cortex-a9"].iter().any(|cpu| flags.contains(cpu));
    flags.contains("+vfp4") || flags.contains("target-cpu=cortex-a") && !older
}
