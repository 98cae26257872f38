//! VNC's password (RFC 6143, 7.2.2): the challenge encrypted with DES, whose key is the password, each byte's bits turned
//! round. Weak, and only for the way between proxy and host.

use des::Des;
use des::cipher::{Block, BlockCipherEncrypt, KeyInit};

/// The answer to a challenge.
pub(super) fn answer(password: &str, challenge: [u8; 16]) -> [u8; 16] {
    let mut key = [0_u8; 8];
    for (place, byte) in key.iter_mut().zip(password.bytes()) {
        *place = byte.reverse_bits();
    }
    let cipher = Des::new(&key.into());
    let mut answer = challenge;
    for half in answer.chunks_exact_mut(8) {
        let mut block = Block::<Des>::default();
        block.copy_from_slice(half);
        cipher.encrypt_block(&mut block);
        half.copy_from_slice(&block);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as OpenSSL's: `printf '\0…\x0f' | openssl enc -des-ecb -nopad -K <bits turned round>`.
    #[test]
    fn as_others_compute_it() {
        let challenge: [u8; 16] = std::array::from_fn(|n| n as u8);
        let hex: String = answer("password", challenge).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "b866924125c8eebb9debc1db61c538e2");
        assert_eq!(answer("passwordand more", challenge), answer("password", challenge));
        assert_ne!(answer("", challenge), challenge);
    }
}
