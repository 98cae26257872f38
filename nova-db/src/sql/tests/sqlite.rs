//! The store on a SQLite file that several processes have open.

use super::race;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_race() {
    let folder = tempfile::TempDir::new().unwrap();
    let url = format!("sqlite:{}", folder.path().join("nova.db").display());
    let child = concat!(module_path!(), "::race_in_child").split_once("::").unwrap().1;
    race::processes_race(&url, child).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs NOVA_TEST_RACE, which processes_race sets for its children"]
async fn race_in_child() {
    race::race_in_child().await;
}
