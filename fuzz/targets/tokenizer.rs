//! The tokenizers: texts and tables come back as they were, or are refused.

#![no_main]

use fuzz::Input;
use jostle::{ByteTokenizer, CharTable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (room, tokens_room) = (input.size().min(300), input.size().min(300));
    let given: Vec<char> = (0..input.below(6)).filter_map(|_| char::from_u32(input.u32() >> 11)).collect();
    let wild: Vec<i32> = (0..input.below(6)).map(|_| input.u32() as i32).collect();
    let rest = input.rest();

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
