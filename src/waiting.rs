//! What a server waits for, told to operators: by the API in a header, and by `nova-manage server show`.

use nova_core::instance::Instance;
use nova_core::task::Waiting;
use nova_db::{Store, StoreError};

/// What each of its tasks waits for, oldest task first; nothing of a server that nothing is done with.
///
/// # Errors
/// Whatever the store says. What is over meanwhile is left out.
pub async fn waiting_of(store: &dyn Store, instance: &Instance) -> Result<Vec<Waiting>, StoreError> {
    let mut found = Vec::new();
    for task in store.list_tasks(Some(instance.id)).await? {
        let action = known(store.get_action(instance.id, &task.context.request_id).await)?;
        let migration = match task.work.migration() {
            Some(uuid) => known(store.get_migration(uuid).await)?,
            None => None,
        };
        found.extend(Waiting::of(&task, instance, migration.as_ref(), action.as_ref()));
    }
    Ok(found)
}

fn known<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(row) => Ok(Some(row)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
