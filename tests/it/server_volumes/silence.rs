//! What fails and cannot be taken back, since those whose it is do not answer: it is asked for less and less often, operators see
//! whom it waits for, a deletion goes on all the same, and it ends soon after they answer again.

use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::state::{Action, VmState};
use nova_virt::{ErrorKind, Operation};

use super::options;
use super::refusals::details;
use super::sweep::Deed;
use crate::support::mortal::Life;
use crate::support::networks::{on, these};
use crate::support::{Cloud, CloudOptions};

/// Longer than any task may take.
const FOR_LONG: Duration = Duration::from_secs(3 * 3600);
/// As often as it may be asked meanwhile: every five minutes, and some times more at the beginning.
const ASKED: std::ops::RangeInclusive<u32> = 20..=45;
/// Until it is asked again.
const SOON: Duration = Duration::from_secs(310);

/// What an operator reads of the one thing that is done with the server.
async fn waits_for(cloud: &Cloud, server: InstanceId) -> String {
    let waiting = nova::waiting::waiting_of(&*cloud.store, &cloud.get(server).await).await.unwrap();
    let [one] = &waiting[..] else { panic!("{waiting:?}") };
    one.to_string()
}

async fn silent(cloud: &mut Cloud, operation: Operation) -> std::sync::Arc<Life> {
    let life = Life::long();
    cloud.replace_conductor("unheard", Some(life.clone())).await;
    cloud.hosts.values().next().unwrap().fail_next(operation, 1, ErrorKind::Failed);
    life.silence(true);
    life
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_for_until_they_answer() {
    for deed in [Deed::Attach, Deed::Swap] {
        let (mut cloud, server, volume) = deed.cloud().await;
        let life = silent(&mut cloud, deed.operation()).await;
        assert_eq!(deed.ask(&cloud, server, volume).await, 202);
        cloud.pass(FOR_LONG).await;
        let asked = life.asked_in_vain();
        assert!(ASKED.contains(&asked), "{deed:?}: asked {asked} times");
        let text = waits_for(&cloud, server).await;
        assert!(text.contains("taking back") && text.contains(&format!("asked in vain {asked} times")), "{text}");
        assert!(text.contains("does not answer: nobody is there"), "{text}");
        life.silence(false);
        cloud.pass(SOON).await;
        let details = details(&cloud, server).await;
        assert!(!details.contains("left as it is"), "{deed:?}: {details}");
        deed.judge(&cloud, server, volume, "silence").await;
        deed.end(cloud, server).await;
    }
}

/// Who refuses after that is asked for as long as anybody who refuses.
#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_silence_is_not_the_end() {
    let (mut cloud, server, volume) = Deed::Attach.cloud().await;
    let life = silent(&mut cloud, Operation::AttachDisk).await;
    assert_eq!(Deed::Attach.ask(&cloud, server, volume).await, 202);
    cloud.pass(FOR_LONG).await;
    life.refuse(true);
    life.silence(false);
    cloud.pass(SOON).await;
    let text = waits_for(&cloud, server).await;
    assert!(!text.contains("in vain"), "{text}");
    life.refuse(false);
    cloud.pass(Duration::from_secs(20)).await;
    let details = details(&cloud, server).await;
    assert!(!details.contains("left as it is"), "{details}");
    Deed::Attach.judge(&cloud, server, volume, "silence").await;
    Deed::Attach.end(cloud, server).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_ends_what_waits() {
    let (mut cloud, server, volume) = Deed::Attach.cloud().await;
    let life = silent(&mut cloud, Operation::AttachDisk).await;
    assert_eq!(Deed::Attach.ask(&cloud, server, volume).await, 202);
    cloud.pass(FOR_LONG).await;
    assert!(cloud.act(server, Action::Delete).await);
    cloud.pass(Duration::from_secs(60)).await;
    let text = waits_for(&cloud, server).await;
    assert!(text.starts_with("delete: "), "{text}");
    life.silence(false);
    Deed::Attach.end_of(cloud, server).await;
}

/// The same of ports.
#[tokio::test(start_paused = true)]
async fn ports() {
    let mut cloud = Cloud::start(CloudOptions { hosts: 1, ..options() }).await;
    let network = cloud.add_network("10.0.0.0/24").await.id;
    let life = silent(&mut cloud, Operation::Spawn).await;
    let failed = cloud.boot_on(these([on(network)]), cloud.flavor(1, 256)).await;
    cloud.pass(FOR_LONG).await;
    assert!(ASKED.contains(&life.asked_in_vain()), "asked {} times", life.asked_in_vain());
    let text = waits_for(&cloud, failed).await;
    assert!(text.starts_with("build: taking back network"), "{text}");
    life.silence(false);
    cloud.pass(SOON).await;
    assert_eq!(cloud.get(failed).await.vm_state, VmState::Error);
    let said = details(&cloud, failed).await;
    assert!(!said.contains("left as it is"), "{said}");
    assert!(cloud.ports().await.is_empty(), "{:?}", cloud.ports().await);
    assert!(cloud.act(failed, Action::Delete).await);
    cloud.settle().await;
    cloud.check().await;
    cloud.stop().await;
}
