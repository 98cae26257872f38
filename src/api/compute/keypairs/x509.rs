//! X.509 certificates as key pairs of Windows guests: recognised and fingerprinted, never looked into further
//! (nova/crypto.py, `generate_x509_fingerprint`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::public_key::colons;

/// The SHA-1 fingerprint, in colon form, of a certificate in PEM form, with or without its armour.
///
/// # Errors
/// Nova's text, for what is no certificate.
pub fn fingerprint(certificate: &str) -> Result<String, String> {
    let der = der(certificate).ok_or_else(|| {
        "failed to generate X509 fingerprint. Error message: the certificate cannot be decoded".to_owned()
    })?;
    Ok(colons(&sha1(&der)))
}

fn der(certificate: &str) -> Option<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = certificate.trim();
    let inner = match text.strip_prefix(BEGIN) {
        Some(rest) => rest.split_once(END).filter(|(_, after)| after.trim().is_empty())?.0,
        None => text,
    };
    let encoded: String = inner.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(encoded).ok()?;
    is_sequence(&der).then_some(der)
}

/// Is it one DER sequence, from the first byte to the last, that itself begins with a sequence? Certificates are.
fn is_sequence(der: &[u8]) -> bool {
    let Some((header, content)) = header(der) else { return false };
    header == content.len() && content.first() == Some(&0x30)
}

/// The length that the header of a sequence names, and what follows it.
fn header(der: &[u8]) -> Option<(usize, &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if tag != 0x30 {
        return None;
    }
    if first < 0x80 {
        return Some((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    let bytes = rest.get(..count).filter(|b| (1..=4).contains(&b.len()))?;
    let length = bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
    Some((length, rest.get(count..)?))
}

/// SHA-1, RFC 3174. For a fingerprint that clients compare by eye, never for security; it spares a dependency.
fn sha1(data: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut message = data.to_vec();
    message.push(0x80);
    message.resize(message.len().next_multiple_of(64), 0);
    if message.len() - data.len() < 9 {
        message.resize(message.len() + 64, 0);
    }
    let bits = (data.len() as u64).wrapping_mul(8).to_be_bytes();
    let end = message.len() - 8;
    message[end..].copy_from_slice(&bits);
    for block in message.chunks_exact(64) {
        round(&mut state, block);
    }
    let mut digest = [0; 20];
    for (out, word) in digest.chunks_exact_mut(4).zip(state) {
        out.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn round(state: &mut [u32; 5], block: &[u8]) {
    let mut words = [0_u32; 80];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, byte| (word << 8) | u32::from(*byte));
    }
    for t in 16..80 {
        words[t] = (words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]).rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (t, word) in words.iter().enumerate() {
        let (f, k) = match t {
            0..20 => ((b & c) | (!b & d), 0x5a82_7999),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6_u32),
        };
        let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    for (old, new) in state.iter_mut().zip([a, b, c, d, e]) {
        *old = old.wrapping_add(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(data: &[u8]) -> String {
        colons(&sha1(data)).replace(':', "")
    }

    #[test]
    fn sha1_is_that_of_the_rfc() {
        assert_eq!(hex(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            hex(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1"
        );
        assert_eq!(
            hex(&b"0123456701234567012345670123456701234567012345670123456701234567".repeat(10)),
            "dea356a2cddd90c7a7ecedc5ebb563934f460452"
        );
        assert_eq!(hex(b""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    }

    #[test]
    fn armour_is_optional_and_the_content_a_sequence() {
        let der = [0x30, 0x04, 0x30, 0x02, 0x05, 0x00];
        let encoded = STANDARD.encode(der);
        let expected = colons(&sha1(&der));
        assert_eq!(fingerprint(&encoded).unwrap(), expected);
        let armoured = format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n");
        assert_eq!(fingerprint(&armoured).unwrap(), expected);
        for bad in [
            "",
            "junk",
            "ssh-rsa AAAA",
            &STANDARD.encode([0x30, 0x05, 0x30, 0x02]),
            &STANDARD.encode([0x02, 0x01, 0x00]),
        ] {
            assert!(fingerprint(bad).unwrap_err().starts_with("failed to generate X509 fingerprint."), "{bad}");
        }
    }
}
