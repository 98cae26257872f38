//! The store on MariaDB or MySQL: each test in a database of its own.

use sqlx::Connection as _;

use super::servers::{Place, block_on, opened, store_at, unique_name};
use super::{checks, race, speed};

fn server() -> String {
    std::env::var("NOVA_TEST_MYSQL_URL").expect("NOVA_TEST_MYSQL_URL says where")
}

async fn run(url: &str, sql: String) {
    let mut connection = sqlx::MySqlConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn place() -> Place {
    let (admin, name) = (server(), unique_name());
    run(&admin, format!("CREATE DATABASE {name}")).await;
    let (address, _) = admin.rsplit_once('/').expect("the URL names a database");
    let url = format!("{address}/{name}");
    let remove = |admin: String, sql| block_on(async move { run(&admin, sql).await });
    Place { url, admin, removal: Some((remove, format!("DROP DATABASE {name}"))) }
}

crate::store_conformance!(ignore = "needs NOVA_TEST_MYSQL_URL"; async { opened(place().await).await });

macro_rules! on_a_place {
    ($($check:ident),+ $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        #[ignore = "needs NOVA_TEST_MYSQL_URL"]
        async fn $check() {
            checks::$check(place().await).await;
        }
    )+ };
}

on_a_place!(
    two_stores_share_a_database,
    many_programs_migrate_at_once,
    empty_database_has_no_schema,
    callers_may_leave,
    callers_share_transactions
);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs NOVA_TEST_MYSQL_URL"]
async fn what_cannot_work_is_told() {
    checks::what_cannot_work_is_told(&server()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs NOVA_TEST_MYSQL_URL"]
async fn newer_schema_is_refused() {
    let place = place().await;
    store_at(&place.url).await.migrate().await.unwrap();
    run(&place.url, "INSERT INTO schema_migrations (version) VALUES (999)".to_owned()).await;
    checks::newer_schema_is_refused(&place.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs NOVA_TEST_MYSQL_URL, which says that MariaDB is installed; starts one of its own"]
async fn restarts_lose_nothing() {
    checks::restarts_lose_nothing("mariadb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs NOVA_TEST_MYSQL_URL"]
async fn processes_race() {
    let child = concat!(module_path!(), "::race_in_child").split_once("::").unwrap().1;
    race::processes_race(&place().await.url, child).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs NOVA_TEST_RACE, which processes_race sets for its children"]
async fn race_in_child() {
    race::race_in_child().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_MYSQL_URL; measures, and asserts nothing"]
async fn speed_of_mysql() {
    let opened = opened(place().await).await;
    speed::measure(std::sync::Arc::clone(&opened.store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_MYSQL_URL; measures, and asserts nothing"]
async fn speed_of_addresses() {
    let opened = opened(place().await).await;
    for projects in [1, 4, 32] {
        speed::measure_addresses(std::sync::Arc::clone(&opened.store), projects).await;
    }
}
