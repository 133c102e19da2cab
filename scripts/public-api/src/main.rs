//! Prints the public items of a crate, one a line, from rustdoc's JSON.

fn main() {
    let path = std::env::args().nth(1).expect("the path of rustdoc's JSON");
    let items = public_api::Builder::from_rustdoc_json(path)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .expect("JSON of the format that public-api reads");
    print!("{items}");
}
