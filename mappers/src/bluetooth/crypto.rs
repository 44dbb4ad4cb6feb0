//! AES-128-CCM (RFC 3610), as encrypted advertisements use it: a nonce of 12 or 13 bytes, a tag of 4.

use aes::Aes128;
use aes::cipher::BlockCipherEncrypt as _;
use ccm::aead::{AeadInOut as _, KeyInit as _};
use ccm::consts::{U4, U12, U13};
use ccm::{Ccm, Tag};

/// The length of the tag, in bytes.
pub const TAG: usize = 4;

/// Decrypts and verifies. `None` when the key is wrong or a bit was changed.
pub fn open(key: &[u8; 16], nonce: &[u8], data: &[u8], sealed: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
    let tag = Tag::<U4>::from(<[u8; TAG]>::try_from(tag).ok()?);
    let mut text = sealed.to_vec();
    if let Ok(nonce) = <[u8; 13]>::try_from(nonce) {
        let cipher = Ccm::<Aes128, U4, U13>::new(key.into());
        cipher.decrypt_inout_detached(&nonce.into(), data, text.as_mut_slice().into(), &tag).ok()?;
    } else {
        let nonce = <[u8; 12]>::try_from(nonce).ok()?;
        let cipher = Ccm::<Aes128, U4, U12>::new(key.into());
        cipher.decrypt_inout_detached(&nonce.into(), data, text.as_mut_slice().into(), &tag).ok()?;
    }
    Some(text)
}

/// Decrypts without verifying, for senders that leave the tag out: the counter mode inside CCM, whose first block of key
/// stream is number 1 (RFC 3610, section 2.3). What comes out has to be judged by its form.
pub fn unverified(key: &[u8; 16], nonce: &[u8; 13], sealed: &[u8]) -> Vec<u8> {
    let cipher = Aes128::new(key.into());
    let mut text = Vec::with_capacity(sealed.len());
    for (number, chunk) in (1u16..).zip(sealed.chunks(16)) {
        let mut block = [0u8; 16];
        block[0] = 1;
        block[1..14].copy_from_slice(nonce);
        block[14..].copy_from_slice(&number.to_be_bytes());
        let mut block = block.into();
        cipher.encrypt_block(&mut block);
        text.extend(chunk.iter().zip(block.iter()).map(|(a, b)| a ^ b));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::decode::hex;
    use super::*;

    /// The example of bthome.io/encryption: "02CA0903BF13" under this key and nonce.
    #[test]
    fn bthomes_example_opens_and_nothing_else() {
        let key: [u8; 16] = hex("231d39c1d7cc1ab1aee224cd096db932").unwrap().try_into().unwrap();
        let nonce = hex("5448E68F80A5d2fc4100112233").unwrap();
        let (sealed, tag) = (hex("a47266c95f73").unwrap(), hex("78237214").unwrap());
        let text = hex("02CA0903BF13").unwrap();
        assert_eq!(open(&key, &nonce, &[], &sealed, &tag), Some(text.clone()));
        assert_eq!(unverified(&key, &nonce.clone().try_into().unwrap(), &sealed), text);
        for (nonce, sealed, tag) in [
            (&nonce[..12], &sealed[..], &tag[..]),
            (&nonce[..], &sealed[..5], &tag[..]),
            (&nonce[..], &sealed[..], &[0, 0, 0, 0][..]),
            (&nonce[..], &sealed[..], &tag[..3]),
            (&nonce[..4], &sealed[..], &tag[..]),
        ] {
            assert_eq!(open(&key, nonce, &[], sealed, tag), None);
        }
    }
}
