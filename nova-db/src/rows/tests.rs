//! What a backend owes the operations: rollback, another try, order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::records::Secret;

/// An operation of a test.
fn operation<F>(run: F) -> WriteOperation
where
    F: for<'a> Fn(&'a mut dyn Transaction) -> BoxFuture<'a, Result<Output, Fail>> + Send + Sync + 'static,
{
    Arc::new(run)
}

fn secret(name: &str) -> Row {
    row_of(&Secret { name: name.to_owned(), value: Vec::new() }, 1).unwrap()
}

async fn names(backend: &dyn Backend) -> Vec<String> {
    let mut tx = backend.read().await.unwrap();
    let rows = tx.select(Secret::TABLE, &Select::all().by(&["name"]), Lock::None).await.unwrap();
    rows.iter().map(|row| row.key(Secret::TABLE)[0].to_string()).collect()
}

fn raced() -> Fail {
    Fail::Raced { kind: Kind::Secret, id: "x".to_owned() }
}

async fn lost_races_are_run_anew(backend: &dyn Backend) {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let flaky = operation(move |tx| {
        let run = counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tx.insert(Secret::TABLE, vec![secret(&format!("try {run}"))]).await?;
            tx.advance(Sequence::Keypair, 1).await?;
            if run < 3 { Err(raced()) } else { Ok(Box::new(run) as Output) }
        })
    });
    let output = backend.write(flaky).await.unwrap();
    assert_eq!(output.downcast::<usize>().ok().as_deref(), Some(&3));
    assert_eq!(names(backend).await, ["try 3"], "nothing of the earlier tries is left");
    assert_eq!(backend.read().await.unwrap().current(Sequence::Keypair).await.unwrap(), 1);
    assert_eq!(backend.commits(), 1);
}

async fn tries_are_bounded(backend: &dyn Backend) {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let hopeless = operation(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Err(raced()) })
    });
    let error = backend.write(hopeless).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Secret, .. }), "{error:?}");
    assert_eq!(tries.load(Ordering::Relaxed), TRIES);
    assert_eq!(backend.commits(), 0);
}

async fn taken_keys_undo_the_whole_insert(backend: &dyn Backend) {
    let add = |names: &'static [&'static str]| {
        operation(move |tx| {
            Box::pin(async move {
                tx.insert(Secret::TABLE, names.iter().map(|name| secret(name)).collect()).await?;
                Ok(Box::new(()) as Output)
            })
        })
    };
    backend.write(add(&["b"])).await.unwrap();
    let error = backend.write(add(&["a", "b", "c"])).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { kind: Kind::Secret, .. }), "{error:?}");
    assert_eq!(names(backend).await, ["b"]);
}

async fn stale_generation_updates_nothing(backend: &dyn Backend) {
    let answers = operation(|tx| {
        Box::pin(async move {
            tx.insert(Secret::TABLE, vec![secret("a")]).await?;
            let next = Row { generation: 2, ..secret("a") };
            let stale = tx.update(Secret::TABLE, next.clone(), 9).await?;
            let right = tx.update(Secret::TABLE, next.clone(), 1).await?;
            let again = tx.update(Secret::TABLE, next, 1).await?;
            Ok(Box::new((stale, right, again)) as Output)
        })
    });
    let answers = backend.write(answers).await.unwrap().downcast::<(bool, bool, bool)>().ok().unwrap();
    assert_eq!(*answers, (false, true, false));
}

macro_rules! on_both {
    ($($check:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $check() {
                super::$check(&crate::MemoryBackend::default()).await;
            })+
        }
        #[cfg(feature = "sqlite")]
        mod sqlite {
            $(#[tokio::test]
            async fn $check() {
                let folder = tempfile::TempDir::new().unwrap();
                let options = crate::OpenOptions::default();
                let backend = crate::SqliteBackend::open(&folder.path().join("nova.db"), &options).await.unwrap();
                super::Backend::migrate(&backend).await.unwrap();
                super::$check(&backend).await;
            })+
        }
    };
}

on_both!(
    lost_races_are_run_anew,
    tries_are_bounded,
    taken_keys_undo_the_whole_insert,
    stale_generation_updates_nothing,
);
