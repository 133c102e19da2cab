//! Names the fused multiply-add of targets without vectors, as `cfg(processor)`, from which `simd/mod.rs` chooses: stable
//! `cfg(target_feature)` tells neither the floats of a Cortex-M nor those of RISC-V, but the name of the target does.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(processor, values(\"thumb\", \"riscv\"))");
    let target = std::env::var("TARGET").unwrap_or_default();
    let (processor, rest) = target.split_once('-').unwrap_or_default();
    let thumb = matches!(processor, "thumbv7em" | "thumbv8m.main") && rest.ends_with("eabihf");
    // The kernels' pointers have 32 bits.
    let extensions = processor.strip_prefix("riscv32");
    let single = |extensions: &str| extensions.split('_').next().is_some_and(|e| e.contains(['f', 'g']));
    if thumb {
        println!("cargo::rustc-cfg=processor=\"thumb\"");
    } else if extensions.is_some_and(single) {
        println!("cargo::rustc-cfg=processor=\"riscv\"");
    }
}
