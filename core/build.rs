//! Sets `cfg(processor)`, by which `simd/portable/mod.rs` chooses the module of a target without vectors. The
//! target's name tells whether it has a floating-point unit; stable `cfg(target_feature)` does not, neither for
//! Cortex-M nor for RISC-V.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(processor, values(\"thumb\", \"riscv\"))");
    let target = std::env::var("TARGET").unwrap_or_default();
    let (processor, rest) = target.split_once('-').unwrap_or_default();
    let thumb = matches!(processor, "thumbv7em" | "thumbv8m.main") && rest.ends_with("eabihf");
    // The kernels need 32-bit pointers.
    let extensions = processor.strip_prefix("riscv32");
    let single = |extensions: &str| extensions.split('_').next().is_some_and(|e| e.contains(['f', 'g']));
    if thumb {
        println!("cargo::rustc-cfg=processor=\"thumb\"");
    } else if extensions.is_some_and(single) {
        println!("cargo::rustc-cfg=processor=\"riscv\"");
    }
}
