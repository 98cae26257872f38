//! What no operation of the store would do: rows that were changed behind its back.

use super::*;

/// The same rows in a SQLite file, where they can be damaged.
async fn damaged(damage: &str) -> (tempfile::TempDir, Checker) {
    let still = Still::new().await;
    tokio::time::resume();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("nova.db").display());
    let store = nova_db::open(&url, &OpenOptions::default()).await.unwrap();
    store.migrate().await.unwrap();
    for node in still.store.list_nodes().await.unwrap() {
        store.put_node(node).await.unwrap();
    }
    copy(&*store, &still).await;
    let options = CheckOptions { pause: Duration::ZERO, ..CheckOptions::default() };
    let checker = Checker { store, options, ..still.checker.clone() };
    assert_eq!(checker.check().await.unwrap().violations, []);
    use sqlx::Connection;
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let done = sqlx::query(sqlx::AssertSqlSafe(damage.to_owned())).execute(&mut connection).await.unwrap();
    assert!(done.rows_affected() > 0, "{damage}");
    connection.close().await.unwrap();
    (folder, checker)
}

async fn copy(store: &dyn Store, still: &Still) {
    let of =
        |server: &Instance| parts(server, Work::Start, &*still.clock, &*still.entropy, Some(server.request_id.clone()));
    let parts: Vec<_> = still.servers.iter().map(of).collect();
    let new = still.servers.iter().zip(&parts).map(|(server, (task, action))| NewInstance {
        instance: server.clone(),
        action: action.clone(),
        task: task.clone(),
    });
    let limits = Limits { instances: None, cores: None, ram: None };
    let made = store
        .create_instances(NewInstances { instances: new.collect(), limits, user_limits: None, group: None })
        .await
        .unwrap();
    for (server, (task, mut action)) in made.into_iter().zip(parts) {
        action.finish(None, still.clock.now());
        let allocation = Allocation {
            instance_id: server.id,
            host: server.host.clone().unwrap(),
            resources: server.flavor.resources(),
            created_at: server.created_at,
            placement: None,
        };
        let epoch = still.servers.iter().find(|known| known.id == server.id).unwrap().epoch;
        let commit = TaskCommit {
            done: true,
            instance: Some(Instance { epoch, ..server }),
            book: Some(Booking::of(allocation)),
            action: Some(action),
            ..TaskCommit::of(store.get_task(task.id).await.unwrap())
        };
        store.commit_task(commit).await.unwrap();
    }
}

async fn damage_is_found(damage: &str, invariants: &[&str]) -> (tempfile::TempDir, Checker, Report) {
    let (folder, checker) = damaged(damage).await;
    let report = checker.check().await.unwrap();
    assert_eq!(found(&report), invariants, "{damage}: {:#?}", report.violations);
    (folder, checker, report)
}

#[tokio::test(start_paused = true)]
async fn i6_usage_is_counted_wrong() {
    let damage = "UPDATE usages SET body = json_set(body, '$.usage.instances', 9, '$.usage.ram', 1)";
    let (_folder, checker, _) = damage_is_found(damage, &["I6"]).await;
    let (tried, after) = checker.repair().await.unwrap();
    assert_eq!((tried.len(), &tried[0].repair), (1, &Repair::RebuildAccounts));
    assert_eq!(after.violations, []);
}

#[tokio::test(start_paused = true)]
async fn i2_a_node_was_miscounted() {
    let damage = "UPDATE compute_nodes SET body = json_set(body, '$.used.memory_mb', 77, '$.allocations', 5) \
                  WHERE host = 'host00'";
    let (_folder, checker, _) = damage_is_found(damage, &["I2"]).await;
    assert_eq!(checker.repair().await.unwrap().1.violations, []);
}

#[tokio::test(start_paused = true)]
async fn i3_a_booking_was_changed() {
    let damage = "UPDATE allocations SET body = json_set(body, '$.resources.memory_mb', 300) \
                  WHERE instance_id = (SELECT MIN(instance_id) FROM allocations)";
    // The host's node no longer agrees with the sum either.
    let (_folder, checker, _) = damage_is_found(damage, &["I2", "I3"]).await;
    assert_eq!(checker.repair().await.unwrap().1.violations, []);
}

#[tokio::test(start_paused = true)]
async fn i16_the_record_of_a_request_is_lost() {
    let damage = "DELETE FROM actions WHERE instance_id = (SELECT MIN(id) FROM instances)";
    damage_is_found(damage, &["I16"]).await;
}

#[tokio::test(start_paused = true)]
async fn i16_two_servers_have_one_number() {
    let damage = "UPDATE instances SET body = json_set(body, '$.number', 77) \
                  WHERE id <> (SELECT MIN(id) FROM instances)";
    damage_is_found(damage, &["I16"]).await;
}

#[tokio::test(start_paused = true)]
async fn i9_an_active_server_is_on_no_host() {
    let damage = "UPDATE instances SET body = json_set(body, '$.host', json('null')) \
                  WHERE id = (SELECT MIN(id) FROM instances)";
    let (_folder, _, report) = damage_is_found(damage, &["I3", "I8", "I9"]).await;
    assert_eq!(report.violations[1].repair, None, "it may be the only copy: {}", report.violations[1]);
}
