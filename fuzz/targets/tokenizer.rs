//! The tokenizers: texts and tables come back as they were, or are refused.

#![no_main]

use fuzz::Input;
use jostle::llama2c::{Piece, Tokenizer};
use jostle::{ByteTokenizer, CharTable};
use libfuzzer_sys::fuzz_target;

/// A tokenizer file with some pieces of text after the bytes.
fn tokenizer_file(input: &mut Input<'_>) -> Vec<u8> {
    let names = (0..256).map(|byte| format!("<0x{byte:02X}>").into_bytes());
    let mut pieces: Vec<_> =
        ["0", "1", "2"].map(Vec::from).into_iter().chain(names).map(|text| (text, 0.0)).collect();
    for _ in 0..input.below(20) {
        let text = (0..1 + input.below(4)).map(|_| b"ab \xc3\xa9"[input.below(5)]).collect();
        pieces.push((text, f32::from_bits(input.u32())));
    }
    let pieces = pieces.iter().map(|(text, score)| Piece { text, score: *score });
    let mut file = vec![7; Tokenizer::file_len(pieces.clone()).unwrap()];
    assert_eq!(Tokenizer::write(pieces, &mut file), Ok(file.len()));
    file
}

/// Encodes and decodes a text. The index must fit the file.
fn there_and_back(file: &[u8], text: &[u8], wild: &[i32]) {
    let Ok(length) = Tokenizer::index_len(file) else { return };
    let mut index = vec![0; length].into_boxed_slice();
    let tokenizer = Tokenizer::new(file, &mut index).unwrap();
    let mut tokens = vec![-7; Tokenizer::room(text.len())].into_boxed_slice();
    let count = tokenizer.encode(text, true, true, &mut tokens).unwrap();
    let mut decoded = vec![7; text.len()].into_boxed_slice();
    assert_eq!(tokenizer.decode(None, &tokens[..count], &mut decoded), Ok(text.len()));
    assert_eq!(*decoded, *text);
    let _ = tokenizer.decode(None, wild, &mut decoded);
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let mut file = tokenizer_file(&mut input);
    let (place, damage) = (input.u32() as usize % file.len(), input.u32());
    let foreign: Vec<u32> = (0..input.below(600)).map(|_| input.u32() % (1 << 12)).collect();
    let (room, tokens_room) = (input.size().min(300), input.size().min(300));
    let given: Vec<char> = (0..input.below(6)).filter_map(|_| char::from_u32(input.u32() >> 11)).collect();
    let wild: Vec<i32> = (0..input.below(6)).map(|_| input.u32() as i32).collect();
    let rest = input.rest();

    there_and_back(&file, rest, &wild);
    let mut tokens = vec![-7; Tokenizer::room(rest.len())].into_boxed_slice();
    let _ = Tokenizer::with_index(&file, &foreign).encode(rest, true, true, &mut tokens);
    file.iter_mut().skip(place).zip(damage.to_le_bytes()).for_each(|(byte, other)| *byte = other);
    there_and_back(&file, rest, &wild);
    file.truncate(place);
    there_and_back(&file, rest, &wild);
    there_and_back(rest, rest, &wild);

    let mut tokens = vec![-7; rest.len()].into_boxed_slice();
    assert_eq!(ByteTokenizer.encode(rest, &mut tokens), Ok(rest.len()));
    let mut decoded = vec![7; rest.len()].into_boxed_slice();
    assert_eq!(ByteTokenizer.decode(&tokens, &mut decoded), Ok(rest.len()));
    assert_eq!(*decoded, *rest);
    let _ = ByteTokenizer.decode(&wild, &mut decoded);

    let text = String::from_utf8_lossy(rest);
    let _ = CharTable::new(&given).map(|table| table.encode(&text, &mut tokens));
    let mut buffer = vec!['\0'; room].into_boxed_slice();
    let Ok(table) = CharTable::collect(&text, &mut buffer) else { return };
    assert_eq!(CharTable::new(table.chars()), Ok(table));
    let mut tokens = vec![-7; tokens_room].into_boxed_slice();
    if let Ok(count) = table.encode(&text, &mut tokens) {
        let back: Option<String> = tokens[..count].iter().map(|token| table.decode(*token)).collect();
        assert_eq!(back.as_deref(), Some(&*text));
    }
    for token in wild {
        assert_eq!(
            table.decode(token).is_some(),
            usize::try_from(token).is_ok_and(|token| token < table.vocab())
        );
    }
});
