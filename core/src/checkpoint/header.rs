//! The header of a safetensors file: one object of tensors, with an optional `__metadata__` object of strings.
//! Knows nothing of models.

use super::json::{Chars, Cursor, Malformed, Text};
use crate::error::{CheckpointError, Error};
use crate::rng;

/// The types of numbers that files of language models have.
const DTYPES: [&str; 8] = ["F32", "F16", "BF16", "F64", "F8_E4M3", "F8_E5M2", "I8", "U8"];

#[inline(never)]
fn dtype_of(given: Text<'_>) -> &'static str {
    DTYPES.iter().find(|known| given.is(known)).unwrap_or(&"another type")
}

/// A tensor's place and type in the file's data.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    name: Text<'a>,
    /// The byte of the file at which its description begins.
    pub at: usize,
    /// The type of its numbers, if it is known, e.g. `F32`.
    pub dtype: &'static str,
    pub rank: usize,
    /// The first two sizes; missing ones are 1.
    pub shape: [usize; 2],
    /// Its first byte in the data; at most `end`.
    pub begin: usize,
    pub end: usize,
}

impl<'a> Entry<'a> {
    /// The name as it is in the file.
    pub fn raw_name(&self) -> Text<'a> {
        self.name
    }

    /// The name without the prefix `transformer.`, which Hugging Face's GPT-2 with a head gives to all tensors but
    /// the head.
    pub fn name(&self) -> Chars<'a> {
        let name = self.name.chars();
        name.clone().after("transformer.").unwrap_or(name)
    }

    /// Reads the object after a tensor's name. Each of its three members must occur exactly once.
    fn read(name: Text<'a>, at: usize, cursor: &mut Cursor<'a>) -> Result<Entry<'a>, Malformed> {
        let (mut dtype, mut shape, mut range) = (None, None, None);
        cursor.expect(b'{')?;
        while cursor.more(dtype.is_none() && shape.is_none() && range.is_none(), b'}')? {
            let member = cursor.name()?;
            let is_new = if member.is("dtype") {
                dtype.replace(dtype_of(cursor.string()?)).is_none()
            } else if member.is("shape") {
                shape.replace(cursor.numbers()?).is_none()
            } else {
                member.is("data_offsets") && range.replace(cursor.numbers()?).is_none()
            };
            if !is_new {
                return Err(Malformed);
            }
        }
        match (dtype, shape, range) {
            (Some(dtype), Some((rank, shape)), Some((2, [begin, end]))) if begin <= end => {
                Ok(Entry { name, at, dtype, rank, shape, begin, end })
            }
            _ => Err(Malformed),
        }
    }
}

/// The tensors of a header, in the order of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Items<'a> {
    cursor: Cursor<'a>,
    first: bool,
    /// The last metadata object so far, and the number of them.
    pub metadata: Pairs<'a>,
    pub metadata_objects: usize,
}

impl<'a> Items<'a> {
    /// Starts to read a header that ends at byte `end` of the file.
    pub fn new(text: &'a [u8], end: usize) -> Result<Items<'a>, Error> {
        let mut cursor = Cursor::new(text, end);
        if text.starts_with(b"{") && cursor.eat(b'{') {
            Ok(Items { cursor, first: true, metadata: Pairs::default(), metadata_objects: 0 })
        } else {
            Err(cursor.error())
        }
    }

    /// The error for malformed text at the current place.
    pub fn error(&self) -> Error {
        self.cursor.error()
    }

    /// The next tensor; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Entry<'a>>, Malformed> {
        while self.cursor.more(self.first, b'}')? {
            self.first = false;
            let at = self.cursor.at();
            let name = self.cursor.name()?;
            if !name.is("__metadata__") {
                return Entry::read(name, at, &mut self.cursor).map(Some);
            }
            self.cursor.expect(b'{')?;
            self.metadata = Pairs { cursor: self.cursor, first: true };
            self.metadata_objects += 1;
            let mut all = self.metadata;
            let read = all.skip_all();
            self.cursor = all.cursor;
            read?;
        }
        self.cursor.finish().map(|()| None)
    }

    /// The next tensor of a header that was read completely before, so that no error can occur.
    pub fn tensor(&mut self) -> Option<Entry<'a>> {
        self.next().ok().flatten()
    }

    /// Whether the tensors cover `length` bytes of data without gap or overlap, given that none ends behind them.
    ///
    /// Ranges in a row begin where others end, but for the first begin and the last end. So do no other ranges that
    /// end after they begin. Sums of hashes compare the begins with the ends in one pass. A file that was made to have
    /// equal sums could only overlap itself.
    pub fn cover(self, length: usize) -> bool {
        let hash = |byte: usize| rng::mix(0, byte as u64);
        let (mut items, mut sum) = (self, hash(length).wrapping_sub(hash(0)));
        while let Some(entry) = items.tensor() {
            sum = sum.wrapping_add(hash(entry.begin)).wrapping_sub(hash(entry.end));
        }
        sum == 0
    }
}

/// The number of names that are compared with all others in one pass. Without a heap, their hashes are on the stack.
const AT_ONCE: usize = if cfg!(target_os = "none") { 32 } else { 2048 };

/// Names in the order of the file, each with the byte of the file to report.
pub(super) trait Names: Clone {
    fn name(&mut self) -> Option<(Chars<'_>, usize)>;

    /// Refuses a name that occurs twice. A file that was made to have equal hashes is refused too.
    #[inline(never)]
    fn no_duplicates(&self) -> Result<(), Error> {
        let mut rest = self.clone();
        loop {
            let (mut table, mut count) = ([0_u64; 2 * AT_ONCE], 0);
            let mut names = rest.clone();
            while let Some((name, at)) = names.name() {
                // 0 is an empty place of the table.
                let hash = name.fold(0, |hash, c| rng::mix(hash, c.into())) | 1;
                let (before, from) = table.split_at_mut(hash as usize % (2 * AT_ONCE));
                let place =
                    from.iter_mut().chain(before).find(|place| matches!(**place, 0) || **place == hash);
                let Some(place) = place else { break };
                if *place == hash {
                    return Err(CheckpointError::Duplicate { at }.into());
                }
                if count < AT_ONCE {
                    (*place, count) = (hash, count + 1);
                    if count == AT_ONCE {
                        rest = names.clone();
                    }
                }
            }
            if count < AT_ONCE {
                return Ok(());
            }
        }
    }
}

impl Names for Items<'_> {
    fn name(&mut self) -> Option<(Chars<'_>, usize)> {
        self.tensor().map(|entry| (entry.name(), entry.at))
    }
}

impl Names for Pairs<'_> {
    fn name(&mut self) -> Option<(Chars<'_>, usize)> {
        self.pair().map(|pair| (pair.key.chars(), pair.at))
    }
}

/// One metadata entry.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub key: Text<'a>,
    pub value: Text<'a>,
    /// The byte of the file at which the value's text begins.
    pub at: usize,
}

/// The metadata of a file: keys and values, in its order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pairs<'a> {
    cursor: Cursor<'a>,
    first: bool,
}

impl<'a> Pairs<'a> {
    /// The byte of the file at which they begin.
    pub(super) fn at(&self) -> usize {
        self.cursor.at()
    }

    fn skip_all(&mut self) -> Result<(), Malformed> {
        while self.step()?.is_some() {}
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Pair<'a>>, Malformed> {
        if !self.cursor.more(self.first, b'}')? {
            return Ok(None);
        }
        self.first = false;
        let key = self.cursor.name()?;
        let value = self.cursor.string()?;
        // Before the closing quote.
        let at = self.cursor.at().saturating_sub(value.raw_len() + 1);
        Ok(Some(Pair { key, value, at }))
    }

    /// The next entry of a header that was read completely before, so that no error can occur.
    pub(super) fn pair(&mut self) -> Option<Pair<'a>> {
        self.step().ok()?
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Text<'a>, Text<'a>);

    fn next(&mut self) -> Option<(Text<'a>, Text<'a>)> {
        let pair = self.pair();
        if pair.is_none() {
            self.cursor = Cursor::default();
        }
        pair.map(|pair| (pair.key, pair.value))
    }
}
