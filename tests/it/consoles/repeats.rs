//! A bus that tells things twice, and one that loses answers.

use std::time::Duration;

use nova::console::AuthOptions;
use nova::console::proxy::{Authority, AuthorityError, ProxyOptions};
use nova_core::console::token_hash;
use nova_core::ids::ConsoleSessionId;
use nova_core::rpc::consoleauth::{EndSessionRequest, OpenConsoleRequest};
use nova_core::state::Action;
use nova_queue::Chances;

use super::rig::{Browser, Rig, come_back};

/// Of a message that was handled twice, the second answer is told: it has to be as good as the first.
#[tokio::test]
async fn consoles_open_over_a_bus_that_repeats() {
    for single_use in [true, false] {
        let rig = Rig::with(|_| {}, AuthOptions { single_use, ..AuthOptions::default() }, 1).await;
        let id = rig.server().await;
        let token = rig.token(id).await;
        let serial = rig.token_for(id, "serial", "serial").await;
        rig.cloud.set_chances(Chances { repeat: 1000, ..Chances::default() });
        let mut browser = rig.open(&token).await;
        assert_eq!(browser.read(8).await, "screen 0");
        let (client, _) = rig.connect(&serial).await.unwrap();
        assert!(Browser::new(client).read(5).await.starts_with(b"\r\n"));
        // Gone on with, as well; and what was closed is closed.
        let cookie = browser.cookie.clone();
        drop(browser);
        let client = come_back(&rig, &token, &cookie).await;
        let mut browser = Browser::new(client);
        browser.begin().await;
        assert_eq!(browser.read(8).await, "screen 0");
        assert_eq!(rig.connect(&token).await.is_ok(), !single_use, "the address is used up");
    }
}

/// Who asked asks again with the same words. Another one's words are of no use.
#[tokio::test]
async fn an_answer_that_was_lost_is_told_again_to_who_asked() {
    let rig = Rig::start().await;
    let (id, authority) = (rig.server().await, rig.authority());
    let token = rig.token(id).await;
    let request = |next: &str| OpenConsoleRequest {
        token_hash: token_hash(&token),
        session_id: ConsoleSessionId::generate(&*rig.cloud.entropy),
        next_hash: Some(token_hash(next)),
    };
    let asked = request("first");
    let session = authority.open(asked.clone()).await.unwrap();
    assert_eq!(session.id, asked.session_id);
    assert_eq!(authority.open(asked.clone()).await.unwrap(), session);
    let worthless = |answer| matches!(answer, Err(AuthorityError::Worthless(_)));
    assert!(worthless(authority.open(request("second")).await), "used");
    let unnamed = OpenConsoleRequest { next_hash: None, ..asked.clone() };
    assert!(worthless(authority.open(unnamed).await));
    // A grant that was never used is not what came of a message.
    let other = rig.token(id).await;
    assert!(worthless(authority.open(request(&other)).await));
    // It is judged each time.
    assert!(rig.cloud.act(id, Action::Stop).await);
    rig.cloud.settle().await;
    assert!(matches!(authority.open(asked.clone()).await, Err(AuthorityError::Refused(_))));
    assert!(rig.cloud.act(id, Action::Start).await);
    rig.cloud.settle().await;
    assert_eq!(authority.open(asked.clone()).await.unwrap(), session);
    // Once the session is over, it is over.
    let over = EndSessionRequest { next_hash: token_hash("first"), keep: Duration::ZERO, back: None };
    authority.end(over).await.unwrap();
    assert!(worthless(authority.open(asked).await));
}

/// Without anything to go on with, nothing remembers that it was opened: refused, and nobody else got in.
#[tokio::test]
async fn where_sessions_are_not_gone_on_with_an_address_is_asked_for_again() {
    let rig = Rig::with(|_: &mut ProxyOptions| {}, AuthOptions { resume: false, ..AuthOptions::default() }, 1).await;
    let id = rig.server().await;
    let token = rig.token(id).await;
    rig.cloud.set_chances(Chances { repeat: 1000, ..Chances::default() });
    assert_eq!(rig.connect(&token).await.unwrap_err(), 403);
    rig.cloud.set_chances(Chances::default());
    let mut browser = rig.open(&rig.token(id).await).await;
    assert_eq!(browser.read(8).await, "screen 0");
}
