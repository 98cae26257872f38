//! A client says anything before its console is shown: it is let on only after RFB's begin as this proxy has it, and is told
//! no more than belongs there.

use nova::console::proxy::welcome;

use crate::speaker::Speaker;

/// All that a client is told: version, one security type, and that all is well.
const TOLD: &[u8] = b"RFB 003.008\n\x01\x01\0\0\0\0";
/// What a client says that is let on.
const GOOD: &[u8] = b"RFB 003.008\n\x01";

/// Good begins.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![GOOD.to_vec(), b"RFB 003.008\n\x01\x01and more".to_vec(), b"RFB 003.003\n\x02".to_vec()]
}

/// Runs it.
pub fn run(said: &[u8]) {
    crate::runtime().block_on(async {
        let mut client = Speaker::saying(said);
        let let_on = welcome(&mut client).await.is_ok();
        assert_eq!(let_on, said.starts_with(GOOD));
        assert!(TOLD.starts_with(&client.told) && (client.told.len() == TOLD.len()) == let_on);
    });
}
