//! CRC-32 as in IEEE 802.3, zip and PNG (polynomial 0xEDB88320, reflected). Knows nothing of files.

use crate::target::Target;

/// `TABLES[k][b]` is what byte b contributes once k more bytes have followed it.
static TABLES: [[u32; 256]; 8] = tables();

/// The contribution of half a byte: the only table on portable targets, where memory is short.
static HALVES: [u32; 16] = {
    let (whole, mut halves, mut half) = (tables(), [0; 16], 0);
    while half < 16 {
        halves[half] = whole[0][half << 4];
        half += 1;
    }
    halves
};

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut k = 0;
        while k < 8 {
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
                bit += 1;
            }
            tables[k][byte] = crc;
            k += 1;
        }
        byte += 1;
    }
    tables
}

/// A checksum in progress.
#[derive(Clone, Copy)]
pub(super) struct Crc(u32);

impl Crc {
    pub const START: Crc = Crc(!0);

    #[must_use]
    #[inline(never)]
    pub fn update(self, bytes: &[u8]) -> Crc {
        match Target::HERE {
            Target::Vectors => self.by_eight(bytes),
            Target::Portable => self.by_halves(bytes),
        }
    }

    fn by_halves(self, bytes: &[u8]) -> Crc {
        let half = |crc: u32| (crc >> 4) ^ HALVES[(crc & 15) as usize];
        Crc(bytes.iter().fold(self.0, |crc, byte| half(half(crc ^ u32::from(*byte)))))
    }

    /// Processes eight bytes at a time (Kounavis & Berry 2005), because a checkpoint can have gigabytes.
    fn by_eight(self, bytes: &[u8]) -> Crc {
        let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
        let at = |table: &[u32; 256], byte: u8| table[usize::from(byte)];
        let (chunks, rest) = bytes.as_chunks::<8>();
        let mut crc = self.0;
        for &[a, b, c, d, e, f, g, h] in chunks {
            let [w, x, y, z] = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
            crc = at(t7, w) ^ at(t6, x) ^ at(t5, y) ^ at(t4, z);
            crc ^= at(t3, e) ^ at(t2, f) ^ at(t1, g) ^ at(t0, h);
        }
        for &byte in rest {
            crc = (crc >> 8) ^ at(t0, crc as u8 ^ byte);
        }
        Crc(crc)
    }

    pub const fn finish(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Crc;

    #[test]
    fn published_check_values() {
        let crc = |bytes: &[u8]| Crc::START.update(bytes).finish();
        assert_eq!(crc(b""), 0);
        assert_eq!(crc(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc(b"The quick brown fox jumps over the lazy dog"), 0x414F_A339);
        assert_eq!(crc(&[0; 32]), 0x190A_55AD);
        assert_eq!(crc(&[0xFF; 32]), 0xFF6C_AB0B);
    }

    #[test]
    fn pieces_of_any_length_give_the_same() {
        let text = b"The quick brown fox jumps over the lazy dog";
        for middle in 0..text.len() {
            let (a, b) = text.split_at(middle);
            assert_eq!(Crc::START.by_eight(a).by_eight(b).finish(), 0x414F_A339);
            assert_eq!(Crc::START.by_halves(a).by_halves(b).finish(), 0x414F_A339);
        }
    }
}
