//! Gives the shared library the name under which programs look for it at run time.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Before version 1, each minor version may change the interface.
    let series = match env!("CARGO_PKG_VERSION_MAJOR") {
        "0" => concat!("0.", env!("CARGO_PKG_VERSION_MINOR")),
        major => major,
    };
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libjostle.so.{series}"),
        Ok("macos") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libjostle.{series}.dylib")
        }
        _ => {}
    }
}
