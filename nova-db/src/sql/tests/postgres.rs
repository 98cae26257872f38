//! The store on PostgreSQL: each test in a schema of its own.

use sqlx::Connection as _;

use super::servers::{Place, block_on, opened, store_at, unique_name};
use super::{checks, race, speed};

fn server() -> String {
    std::env::var("NOVA_TEST_POSTGRES_URL").expect("NOVA_TEST_POSTGRES_URL says where")
}

async fn run(url: &str, sql: String) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn place() -> Place {
    let (admin, name) = (server(), unique_name());
    run(&admin, format!("CREATE SCHEMA {name}")).await;
    let joint = if admin.contains('?') { '&' } else { '?' };
    let url = format!("{admin}{joint}options[search_path]={name}");
    let remove = |admin: String, sql| block_on(async move { run(&admin, sql).await });
    Place { url, admin, removal: Some((remove, format!("DROP SCHEMA {name} CASCADE"))) }
}

crate::store_conformance!(ignore = "needs NOVA_TEST_POSTGRES_URL"; async { opened(place().await).await });

macro_rules! on_a_place {
    ($($check:ident),+ $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        #[ignore = "needs NOVA_TEST_POSTGRES_URL"]
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
#[ignore = "needs NOVA_TEST_POSTGRES_URL"]
async fn what_cannot_work_is_told() {
    checks::what_cannot_work_is_told(&server()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs NOVA_TEST_POSTGRES_URL"]
async fn newer_schema_is_refused() {
    let place = place().await;
    store_at(&place.url).await.migrate().await.unwrap();
    run(&place.url, "INSERT INTO schema_migrations (version) VALUES (999)".to_owned()).await;
    checks::newer_schema_is_refused(&place.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs NOVA_TEST_POSTGRES_URL, which says that PostgreSQL is installed; starts one of its own"]
async fn restarts_lose_nothing() {
    checks::restarts_lose_nothing("postgresql").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs NOVA_TEST_POSTGRES_URL"]
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
#[ignore = "needs NOVA_TEST_POSTGRES_URL; measures, and asserts nothing"]
async fn speed_of_postgres() {
    let opened = opened(place().await).await;
    speed::measure(std::sync::Arc::clone(&opened.store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_POSTGRES_URL; measures, and asserts nothing"]
async fn speed_of_addresses() {
    let opened = opened(place().await).await;
    for projects in [1, 4, 32] {
        speed::measure_addresses(std::sync::Arc::clone(&opened.store), projects).await;
    }
}

/// A table that nobody has analysed yet: the plan that a connection makes then is the one that it keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs NOVA_TEST_POSTGRES_URL"]
async fn servers_of_a_host_are_looked_up_by_their_host() {
    let place = place().await;
    store_at(&place.url).await.migrate().await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&place.url).await.unwrap();
    let question = "EXPLAIN SELECT id FROM instances WHERE deleted = 0 AND host = 'host1' ORDER BY created_at, id";
    let plan: Vec<String> = sqlx::query_scalar(question).fetch_all(&mut connection).await.unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("ix_instances_host_deleted_created_at_id"), "{plan}");
    let old = "SELECT COUNT(*) FROM pg_indexes WHERE schemaname = current_schema() AND indexname = 'ix_instances_host_deleted'";
    let old: i64 = sqlx::query_scalar(old).fetch_one(&mut connection).await.unwrap();
    assert_eq!(old, 0, "it is of no use any more");
    connection.close().await.unwrap();
}
