//! The store on SQLite.

use std::sync::Arc;

use nova_db::conformance::Opened;
use nova_db::{OpenOptions, Store, open};
use tempfile::TempDir;

async fn store_in(folder: &TempDir) -> Arc<dyn Store> {
    let url = format!("sqlite:{}", folder.path().join("nova.db").display());
    open(&url, &OpenOptions::default()).await.unwrap()
}

async fn open_sqlite() -> Opened {
    let folder = TempDir::new().unwrap();
    let store = store_in(&folder).await;
    store.migrate().await.unwrap();
    Opened { store, keep: Some(Box::new(folder)) }
}

nova_db::store_conformance!(open_sqlite());

mod file {
    //! What only a file has to show.

    use std::path::Path;

    use nova_db::conformance as checks;
    use nova_db::{Kind, OpenOptions, StoreError};
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    async fn refusal(url: &str) -> String {
        match open(url, &OpenOptions::default()).await {
            Err(error @ StoreError::Connection { .. }) => error.to_string(),
            Err(other) => panic!("{url}: {other:?}"),
            Ok(_) => panic!("{url} was opened"),
        }
    }

    /// Does something to the file behind the store's back.
    async fn tamper(folder: &TempDir, sql: &'static str) {
        let path = folder.path().join("nova.db");
        let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    fn copy(from: &Path, to: &Path) {
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }

    /// What was answered is in the files at that moment: a process that is killed then has lost nothing.
    #[tokio::test]
    async fn committed_data_survives_a_kill() {
        let (folder, after) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let store = store_in(&folder).await;
        store.migrate().await.unwrap();
        let secret = store.secret("key", b"value").await.unwrap();
        // The store is still open: nothing was closed or flushed on purpose.
        copy(folder.path(), after.path());
        let again = store_in(&after).await;
        assert_eq!(again.secret("key", b"other").await.unwrap(), secret);
    }

    #[tokio::test]
    async fn dropped_store_is_opened_again() {
        let folder = TempDir::new().unwrap();
        let store = store_in(&folder).await;
        store.migrate().await.unwrap();
        store.secret("key", b"value").await.unwrap();
        drop(store);
        let store = store_in(&folder).await;
        let (found, needed) = store.schema_version().await.unwrap();
        assert_eq!(found, needed);
        assert_eq!(store.secret("key", b"other").await.unwrap(), b"value");
    }

    /// Two programs on one file see each other's commits, and the races come out as with one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn two_stores_share_a_file() {
        let folder = TempDir::new().unwrap();
        let (one, two) = (store_in(&folder).await, store_in(&folder).await);
        let (first, second) = tokio::join!(one.migrate(), two.migrate());
        first.unwrap();
        second.unwrap();
        let mut writers = Vec::new();
        for n in 0..64_u8 {
            let store = Arc::clone(if n % 2 == 0 { &one } else { &two });
            writers.push(tokio::spawn(async move { store.secret(&format!("key {}", n / 8), &[n]).await.unwrap() }));
        }
        let mut answers = Vec::new();
        for writer in writers {
            answers.push(writer.await.unwrap());
        }
        for (n, answer) in answers.iter().enumerate() {
            let name = format!("key {}", n / 8);
            assert_eq!(one.secret(&name, b"late").await.unwrap(), *answer);
            assert_eq!(two.secret(&name, b"late").await.unwrap(), *answer);
        }
        assert_eq!(one.commits() + two.commits(), 8);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_programs_migrate_at_once() {
        let folder = TempDir::new().unwrap();
        let mut running = Vec::new();
        for _ in 0..8 {
            let store = store_in(&folder).await;
            running.push(tokio::spawn(async move { store.migrate().await }));
        }
        for migration in running {
            migration.await.unwrap().unwrap();
        }
        checks::open_store_is_healthy(&store_in(&folder).await).await;
    }

    #[tokio::test]
    async fn empty_file_has_no_schema() {
        let folder = TempDir::new().unwrap();
        let store = store_in(&folder).await;
        let (found, needed) = store.schema_version().await.unwrap();
        assert!(found == 0 && needed > 0);
        let error = store.list_flavors().await.unwrap_err();
        assert!(matches!(error, StoreError::SchemaStale { found: 0, .. }), "{error:?}");
        let error = store.secret("key", b"value").await.unwrap_err();
        assert!(matches!(error, StoreError::SchemaStale { found: 0, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn newer_schema_is_refused() {
        let folder = TempDir::new().unwrap();
        let store = store_in(&folder).await;
        store.migrate().await.unwrap();
        tamper(&folder, "INSERT INTO schema_migrations (version) VALUES (999)").await;
        let error = store.migrate().await.unwrap_err();
        assert!(matches!(error, StoreError::SchemaNewer { found: 999, .. }), "{error:?}");
        assert_eq!(store.schema_version().await.unwrap().0, 999);
    }

    #[tokio::test]
    async fn damaged_rows_are_told_and_harm_nothing_else() {
        let folder = TempDir::new().unwrap();
        let store = store_in(&folder).await;
        store.migrate().await.unwrap();
        store.secret("good", b"value").await.unwrap();
        for (damage, name) in [
            ("INSERT INTO secrets (name, generation, body) VALUES ('bad json', 1, '{\"name\":')", "bad json"),
            ("INSERT INTO secrets (name, generation, body) VALUES ('bad shape', 1, '[]')", "bad shape"),
            ("INSERT INTO secrets (name, generation, body) VALUES ('bad text', 1, x'ff00ff')", "bad text"),
            ("INSERT INTO secrets (name, generation, body) VALUES ('bad number', 'x', '{}')", "bad number"),
        ] {
            tamper(&folder, damage).await;
            let error = store.secret(name, b"value").await.unwrap_err();
            assert!(matches!(&error, StoreError::Corrupt { kind: Kind::Secret, id, .. } if id == name), "{error:?}");
        }
        assert_eq!(store.secret("good", b"other").await.unwrap(), b"value");
        store.secret("new", b"value").await.unwrap();
    }

    /// A transaction that fails for want of a table leaves the writer working.
    #[tokio::test]
    async fn broken_table_is_an_error_and_no_end() {
        let folder = TempDir::new().unwrap();
        let store = store_in(&folder).await;
        store.migrate().await.unwrap();
        tamper(&folder, "ALTER TABLE secrets RENAME COLUMN body TO gone").await;
        let error = store.secret("key", b"value").await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { backend: "sqlite", .. }), "{error:?}");
        assert!(error.is_retryable());
        tamper(&folder, "ALTER TABLE secrets RENAME COLUMN gone TO body").await;
        assert_eq!(store.secret("key", b"value").await.unwrap(), b"value");
    }

    #[tokio::test]
    async fn what_is_no_database_is_refused_by_name() {
        let folder = TempDir::new().unwrap();
        let garbage = folder.path().join("garbage");
        std::fs::write(&garbage, vec![b'x'; 8192]).unwrap();
        let folder = folder.path().display();
        for (url, word) in [
            (format!("sqlite:{folder}/garbage"), "not a database"),
            (format!("sqlite:{folder}"), "cannot open"),
            (format!("sqlite:{folder}/none/nova.db"), "does not exist"),
        ] {
            let text = refusal(&url).await;
            assert!(text.contains(&url) && text.contains(word), "{text}");
        }
        assert_eq!(std::fs::read(&garbage).unwrap(), vec![b'x'; 8192], "and is not written to");
    }

    /// It holds password hashes and signing keys.
    #[tokio::test]
    async fn files_are_the_owners_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = TempDir::new().unwrap();
        let store = store_in(&folder).await;
        store.migrate().await.unwrap();
        let mut seen = 0;
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
            seen += 1;
        }
        assert!(seen >= 2, "the file and its log");
    }

    #[tokio::test]
    async fn sqlalchemys_form_of_the_url_is_understood() {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}/nova.db", folder.path().display());
        let store = open(&url, &OpenOptions::default()).await.unwrap();
        store.ping().await.unwrap();
        assert!(folder.path().join("nova.db").exists());
    }

    /// A caller that leaves while its operation runs leaves the store whole.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn callers_may_leave() {
        let folder = TempDir::new().unwrap();
        let store = store_in(&folder).await;
        store.migrate().await.unwrap();
        for n in 0..64 {
            let store = Arc::clone(&store);
            let call = tokio::spawn(async move { store.secret(&format!("{n}"), b"value").await });
            tokio::task::yield_now().await;
            call.abort();
        }
        for n in 0..64 {
            assert_eq!(store.secret(&format!("{n}"), b"value").await.unwrap(), b"value");
        }
    }

    /// With one clock that stands still nothing here waits for it.
    #[tokio::test(start_paused = true)]
    async fn works_under_a_virtual_clock() {
        let opened = open_sqlite().await;
        checks::created_instance_is_read_back(&opened.store).await;
    }
}
