//! Bringing the schema up to date.

use sea_query::{ColumnDef, Index, Query, Table as Create};

use super::dialect::Dialect;
use super::link::{Link, nothing};
use super::migrations::{MIGRATIONS, Migration, NewTable, Step, newest};
use super::statements::{BODY, GENERATION, SEQUENCES};
use crate::StoreError;
use crate::rows::{Column, ColumnType};

/// The table that says which migrations were carried out.
const VERSIONS: &str = "schema_migrations";

/// The version that the database has; 0 for an empty one.
pub(super) async fn version(link: &mut dyn Link) -> Result<u32, StoreError> {
    let dialect = link.dialect();
    match link.number(format!("SELECT COALESCE(MAX(version), 0) FROM {VERSIONS}"), nothing()).await {
        Ok(version) => Ok(version.and_then(|version| u32::try_from(version).ok()).unwrap_or(0)),
        Err(error) if dialect.is_missing_table(&error) => Ok(0),
        Err(error) => Err(dialect.unavailable(error)),
    }
}

/// Carries out what is missing, in one transaction. Two programs that do it at once wait for each other: the second
/// finds nothing left to do.
pub(super) async fn migrate(link: &mut dyn Link) -> Result<(), StoreError> {
    let begin = link.dialect().begin();
    run(link, begin.to_owned()).await?;
    match missing(link).await {
        Ok(()) => run(link, "COMMIT".to_owned()).await,
        Err(error) => {
            // The connection is not used any further; its end rolls back too.
            let _ = run(link, "ROLLBACK".to_owned()).await;
            Err(error)
        }
    }
}

async fn missing(link: &mut dyn Link) -> Result<(), StoreError> {
    run(link, format!("CREATE TABLE IF NOT EXISTS {VERSIONS} (version BIGINT NOT NULL PRIMARY KEY)")).await?;
    let (found, needed) = (version(link).await?, newest());
    if found > needed {
        return Err(StoreError::SchemaNewer { found, needed });
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        apply(link, migration).await?;
    }
    Ok(())
}

async fn apply(link: &mut dyn Link, migration: &Migration) -> Result<(), StoreError> {
    for step in migration.steps {
        match step {
            Step::Table(table) => create_table(link, table).await?,
            Step::Sequences(names) => create_sequences(link, names).await?,
        }
    }
    run(link, format!("INSERT INTO {VERSIONS} (version) VALUES ({})", migration.version)).await?;
    tracing::info!(version = migration.version, backend = link.dialect().name(), "database schema migrated");
    Ok(())
}

fn column(dialect: Dialect, column: &Column) -> ColumnDef {
    let mut definition = ColumnDef::new_with_type(column.name, dialect.column_type(column.ty));
    definition.not_null();
    definition
}

async fn create_table(link: &mut dyn Link, table: &NewTable) -> Result<(), StoreError> {
    let dialect = link.dialect();
    let mut create = Create::create();
    create.table(table.name).if_not_exists();
    for declared in table.columns {
        create.col(column(dialect, declared));
    }
    create.col(column(dialect, &Column { name: GENERATION, ty: ColumnType::Int }));
    let mut body = ColumnDef::new_with_type(BODY, dialect.body_type());
    create.col(body.not_null());
    let mut key = Index::create();
    for declared in table.columns.iter().take(table.key) {
        key.col(declared.name);
    }
    create.primary_key(&mut key);
    run(link, dialect.build_table(&create)).await?;
    for columns in table.unique {
        create_index(link, table.name, columns, true).await?;
    }
    for columns in table.indexes {
        create_index(link, table.name, columns, false).await?;
    }
    Ok(())
}

async fn create_index(
    link: &mut dyn Link,
    table: &'static str,
    columns: &[&'static str],
    unique: bool,
) -> Result<(), StoreError> {
    let mut index = Index::create();
    let prefix = if unique { "ux" } else { "ix" };
    index.name(format!("{prefix}_{table}_{}", columns.join("_"))).table(table).if_not_exists();
    if unique {
        index.unique();
    }
    for column in columns {
        index.col(*column);
    }
    let sql = link.dialect().build_index(&index);
    run(link, sql).await
}

async fn create_sequences(link: &mut dyn Link, names: &[&'static str]) -> Result<(), StoreError> {
    let dialect = link.dialect();
    let (name, value) = (Column::text("name", 64), Column::int("value"));
    let mut create = Create::create();
    create.table(SEQUENCES).if_not_exists().col(column(dialect, &name)).col(column(dialect, &value));
    create.primary_key(Index::create().col("name"));
    run(link, dialect.build_table(&create)).await?;
    for name in names {
        let mut insert = Query::insert();
        insert.into_table(SEQUENCES).columns(["name", "value"]);
        let filled = insert.values([sea_query::Expr::val(*name), sea_query::Expr::val(0_i64)]);
        filled.map_err(|error| StoreError::Unavailable { backend: dialect.name(), source: error.into() })?;
        let (sql, values) = dialect.build(&insert);
        link.execute(sql, values).await.map_err(|error| dialect.unavailable(error))?;
    }
    Ok(())
}

async fn run(link: &mut dyn Link, sql: String) -> Result<(), StoreError> {
    let dialect = link.dialect();
    link.execute(sql, nothing()).await.map(|_| ()).map_err(|error| dialect.unavailable(error))
}
