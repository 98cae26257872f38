//! Against a recorded transcript: which commands are run, in which order, and what is made of their answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use nova_core::entropy::SeededEntropy;

use super::*;
use crate::volume::driver::VolumeErrorKind;
use crate::volume::driver::conformance::{Pieces, host, ids, image, reader, small, writer};

/// Commands as they must come, each with its answer; `Err` is what the program complains.
type Line = (String, std::result::Result<String, String>);
type Lines = Vec<Line>;

#[derive(Clone)]
struct Transcript(Arc<Mutex<VecDeque<Line>>>);

#[async_trait]
impl Runner for Transcript {
    async fn run(&self, program: &'static str, words: &[&str]) -> Result<String> {
        let asked = [&[program], words].concat().join(" ");
        let (expected, answer) =
            self.0.lock().unwrap().pop_front().unwrap_or_else(|| panic!("not in the transcript: {asked}"));
        assert_eq!(asked, expected);
        answer.map_err(|text| VolumeDriverError::failed("changing logical volumes", text))
    }
}

const LVS: &str =
    "lvs --reportformat json --units b --nosuffix -o lv_name,lv_size,lv_tags,pool_lv,data_percent,zero vg";

/// What `lvs` of LVM 2.03 prints of a pool of 10 GiB, a tenth of it used, with these volumes: name, GiB, tags.
fn listing(volumes: &[(&str, u64, &str)]) -> Line {
    let pool = "{\"lv_name\":\"pool\", \"lv_size\":\"10737418240\", \"lv_tags\":\"\", \"pool_lv\":\"\", \
                \"data_percent\":\"10.00\", \"zero\":\"zero\"}";
    let mut all = vec![pool.to_owned(), pool.replace("\"pool\"", "\"root\"").replace("\"zero\"}", "\"unknown\"}")];
    for (name, size_gb, tags) in volumes {
        let size = size_gb << 30;
        all.push(format!(
            "{{\"lv_name\":\"{name}\", \"lv_size\":\"{size}\", \"lv_tags\":\"{tags}\", \"pool_lv\":\"pool\", \
             \"data_percent\":\"0.00\", \"zero\":\"unknown\"}}"
        ));
    }
    (LVS.to_owned(), Ok(format!("  {{\n \"report\": [ {{ \"lv\": [ {} ] }} ]\n }}\n", all.join(","))))
}

fn done(command: String) -> Line {
    (command, Ok(String::new()))
}

async fn open(lines: Lines) -> Result<(LvmVolumes, Transcript, tempfile::TempDir)> {
    let temp = tempfile::tempdir().unwrap();
    let options = LvmOptions {
        group: "vg".into(),
        thin_pool: "pool".into(),
        staging: temp.path().join("staging"),
        over_subscription_ratio: 2.0,
        reserved_percentage: 0,
        tool_limit: Duration::from_secs(60),
        portal: PortalOptions {
            run_folder: temp.path().join("run"),
            listen: "127.0.0.1".into(),
            advertise: "127.0.0.1".into(),
            port: 3260,
            prefix: "iqn.2010-10.org.openstack".into(),
            command_limit: Duration::from_secs(5),
        },
    };
    let transcript = Transcript(Arc::new(Mutex::new(lines.into())));
    let driver = LvmVolumes::open_with(options, Box::new(transcript.clone()), &SeededEntropy::new(1)).await?;
    Ok((driver, transcript, temp))
}

fn name(number: u8) -> String {
    format!("volume-{}", ids::volume(number))
}

#[tokio::test]
async fn volumes_are_made_grown_and_removed() {
    let (one, two) = (name(1), name(2));
    let lines = vec![
        listing(&[]),
        listing(&[]),
        done(format!("lvcreate -y --type thin -V 1073741824b --thinpool vg/pool -n {one}")),
        listing(&[(&one, 1, "")]),
        listing(&[(&one, 1, "")]),
        done(format!("lvextend -L 2147483648b vg/{one}")),
        listing(&[(&one, 2, "")]),
        listing(&[(&one, 2, "")]),
        done(format!("lvcreate -y -s --setactivationskip n -n {two}.new vg/{one}")),
        done(format!("lvextend -L 3221225472b vg/{two}.new")),
        done(format!("lvrename vg {two}.new {two}")),
        listing(&[(&one, 2, ""), (&two, 3, "")]),
        done(format!("lvremove -y -f vg/{one}")),
        listing(&[(&two, 3, "")]),
    ];
    let (driver, transcript, _temp) = open(lines).await.unwrap();
    driver.create(&small(1)).await.unwrap();
    driver.create(&small(1)).await.unwrap();
    driver.extend(ids::volume(1), 2).await.unwrap();
    let error = driver.extend(ids::volume(1), 1).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Conflict);
    driver.create_from_volume(&NewVolume { size_gb: 3, ..small(2) }, ids::volume(1)).await.unwrap();
    driver.delete(ids::volume(1)).await.unwrap();
    driver.delete(ids::volume(1)).await.unwrap();
    assert!(transcript.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn snapshots_are_volumes_of_their_own() {
    let (one, two) = (name(1), name(2));
    let snapshot = format!("{one}.snapshot-{}", ids::snapshot(1));
    let with = [(one.as_str(), 1, ""), (snapshot.as_str(), 1, "")];
    let lines = vec![
        listing(&[(&one, 1, "")]),
        listing(&[(&one, 1, "")]),
        done(format!("lvcreate -y -s --setactivationskip n -n {snapshot} vg/{one}")),
        listing(&with),
        listing(&with),
        listing(&with),
        done(format!("lvcreate -y -s --setactivationskip n -n {two}.new vg/{snapshot}")),
        done(format!("lvrename vg {two}.new {two}")),
        listing(&with),
        done(format!("lvremove -y -f vg/{snapshot}")),
        listing(&with),
    ];
    let (driver, transcript, _temp) = open(lines).await.unwrap();
    driver.create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
    driver.create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
    assert_eq!(driver.delete(ids::volume(1)).await.unwrap_err().kind(), VolumeErrorKind::Busy);
    driver.create_from_snapshot(&small(2), ids::volume(1), ids::snapshot(1)).await.unwrap();
    driver.delete_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
    let found = driver.inventory().await.unwrap();
    assert_eq!(found.volumes[&ids::volume(1)].snapshots, [ids::snapshot(1)]);
    assert!(transcript.0.lock().unwrap().is_empty());
}

/// An image is written beside what is there, which goes when all of the image is; snapshots need neither. Here there is no such
/// device to write onto.
#[tokio::test]
async fn a_volume_with_snapshots_takes_an_image() {
    let one = name(1);
    let snapshot = format!("{one}.snapshot-{}", ids::snapshot(1));
    let with = || listing(&[(one.as_str(), 1, ""), (snapshot.as_str(), 1, "")]);
    let lines = vec![
        with(),
        with(),
        done(format!("lvcreate -y --type thin -V 1073741824b --thinpool vg/pool -n {one}.new")),
        done(format!("lvremove -y -f vg/{one}.new")),
    ];
    let (driver, transcript, _temp) = open(lines).await.unwrap();
    let written = driver.write_image(ids::volume(1), &image("raw"), Pieces::of(&[0x51; 4096], 512)).await;
    assert_ne!(written.unwrap_err().kind(), VolumeErrorKind::Busy);
    assert!(transcript.0.lock().unwrap().is_empty());
}

/// Ten GiB, twice promised: twenty and no more, whoever asks.
#[tokio::test]
async fn a_thin_pool_promises_no_more_than_its_ratio() {
    let one = name(1);
    let full = || listing(&[(&one, 19, "")]);
    let (driver, transcript, _temp) = open(vec![full(); 5]).await.unwrap();
    let space = driver.stats().await.unwrap();
    assert_eq!((space.total, space.provisioned, space.promisable()), (10 << 30, 19 << 30, 20 << 30));
    assert!(space.free < 10 << 30 && space.free > 8 << 30);
    let refused = [
        driver.create(&NewVolume { size_gb: 2, ..small(2) }).await,
        driver.extend(ids::volume(1), 21).await,
        driver.create_snapshot(ids::volume(1), ids::snapshot(1)).await,
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().kind(), VolumeErrorKind::NoSpace);
    }
    assert!(transcript.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_was_broken_off_is_cleared_at_the_start() {
    let (one, two, three) = (name(1), name(2), name(3));
    let (new, copy) = (format!("{one}.new"), format!("{one}.copy"));
    let (old_two, old_three) = (format!("{two}.old"), format!("{three}.old"));
    let lines = vec![
        listing(&[(&one, 1, ""), (&new, 1, ""), (&copy, 1, ""), (&two, 1, ""), (&old_two, 1, ""), (&old_three, 1, "")]),
        done(format!("lvremove -y -f vg/{new}")),
        done(format!("lvremove -y -f vg/{copy}")),
        done(format!("lvremove -y -f vg/{old_two}")),
        done(format!("lvrename vg {old_three} {three}")),
        listing(&[(&one, 1, ""), (&two, 1, ""), (&three, 1, ""), ("somebodys", 1, "")]),
        listing(&[(&one, 1, ""), (&two, 1, ""), (&three, 1, ""), ("somebodys", 1, "")]),
    ];
    let (driver, transcript, _temp) = open(lines).await.unwrap();
    let found = driver.inventory().await.unwrap();
    assert_eq!((found.volumes.len(), found.unknown), (3, vec!["somebodys".to_owned()]));
    assert!(transcript.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_pool_that_does_not_clear_blocks_is_refused() {
    let (command, answer) = listing(&[]);
    let dirty = answer.unwrap().replace("\"zero\":\"zero\"", "\"zero\":\"\"");
    let error = open(vec![(command, Ok(dirty))]).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Failed);
    let missing = (LVS.to_owned(), Ok("{\"report\":[{\"lv\":[]}]}".to_owned()));
    open(vec![missing]).await.map(|_| ()).unwrap_err();
    let gone = (LVS.to_owned(), Err("Volume group \"vg\" not found".to_owned()));
    open(vec![gone]).await.map(|_| ()).unwrap_err();
}

#[test]
fn tags_say_who_is_let_in() {
    for (attachment, at) in [(writer(1), "compute-1.example"), (reader(2), "höst, with: odd")] {
        let made = tag(attachment.id, &host(at).host, attachment.access);
        assert!(made.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')), "{made}");
        assert_eq!(read_tag(&made), Some((attachment.id, (at.into(), attachment.access))));
    }
    for other in ["", "nova", "nova.x.rw.00", "backup", "nova.00000000-0000-4000-8000-000000000001.xx.00"] {
        assert_eq!(read_tag(other), None, "{other}");
    }
    let tags = format!("backup,{}", tag(ids::attachment(1), &"h1".into(), AccessMode::ReadWrite));
    let (_, answer) = listing(&[(&name(1), 1, &tags)]);
    let table = read(shown(&answer.unwrap()).unwrap(), "pool").unwrap();
    let connections = &table.volumes[&ids::volume(1)].connections;
    assert_eq!(connections[&ids::attachment(1)], ("h1".into(), AccessMode::ReadWrite));
}
