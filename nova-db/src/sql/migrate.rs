//! Bringing the schema up to date.

use sea_query::{ColumnDef, ExprTrait as _, Index, IndexCreateStatement, Query, Table as Create, TableCreateStatement};

use super::dialect::{Dialect, Trouble};
use super::link::{Link, nothing};
use super::migrations::{MIGRATIONS, Migration, NewIndex, NewTable, Step, newest};
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
        Err(error) if dialect.trouble(&error) == Trouble::MissingTable => Ok(0),
        Err(error) => Err(dialect.unavailable(error)),
    }
}

/// Carries out what is missing. Two programs that do it at once wait for each other: the second finds nothing left to
/// do. One transaction where the database can take a schema back; elsewhere steps that may be repeated after one that
/// was cut off.
pub(super) async fn migrate(link: &mut dyn Link) -> Result<(), StoreError> {
    lock(link).await?;
    let done = missing(link).await;
    // After an error the connection is not used any further; its end rolls back and unlocks too.
    let unlocked = unlock(link, done.is_ok()).await;
    done.and(unlocked)
}

/// For PostgreSQL's advisory lock: a number of our own. It is the database's, so stores in two schemas of one wait for
/// each other, which harms nobody.
#[cfg(feature = "postgres")]
const LOCK: i64 = 0x6e6f_7661_6462;

/// MariaDB's named locks are the server's: the name has the database in it, shortened to the 64 characters allowed.
#[cfg(feature = "mysql")]
const LOCK_NAME: &str = "CONCAT('nova-schema-', MD5(DATABASE()))";

async fn lock(link: &mut dyn Link) -> Result<(), StoreError> {
    let dialect = link.dialect();
    match dialect {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => run(link, dialect.begin().to_owned()).await,
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            run(link, dialect.begin().to_owned()).await?;
            run(link, "SET LOCAL lock_timeout = '10min'".to_owned()).await?;
            run(link, format!("SELECT pg_advisory_xact_lock({LOCK})")).await
        }
        #[cfg(feature = "mysql")]
        Dialect::Mysql => {
            let locked = link.number(format!("SELECT COALESCE(GET_LOCK({LOCK_NAME}, 600), 0)"), nothing()).await;
            match locked.map_err(|error| dialect.unavailable(error))? {
                Some(1) => Ok(()),
                _ => Err(StoreError::Unavailable {
                    backend: dialect.name(),
                    source: "another program has been migrating the schema for ten minutes".into(),
                }),
            }
        }
    }
}

async fn unlock(link: &mut dyn Link, commit: bool) -> Result<(), StoreError> {
    let end = if commit { "COMMIT" } else { "ROLLBACK" };
    match link.dialect() {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => run(link, end.to_owned()).await,
        #[cfg(feature = "postgres")]
        Dialect::Postgres => run(link, end.to_owned()).await,
        #[cfg(feature = "mysql")]
        Dialect::Mysql => {
            run(link, end.to_owned()).await?;
            run(link, format!("DO RELEASE_LOCK({LOCK_NAME})")).await
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
            Step::Index(new) => replace_index(link, new).await?,
        }
    }
    run(link, format!("INSERT INTO {VERSIONS} (version) VALUES ({})", migration.version)).await?;
    tracing::info!(version = migration.version, backend = link.dialect().name(), "database schema migrated");
    Ok(())
}

fn column(dialect: Dialect, column: &Column) -> ColumnDef {
    let mut definition = ColumnDef::new_with_type(column.name, dialect.column_type(column.ty));
    definition.not_null();
    if let (ColumnType::Text(_), Some(collation)) = (column.ty, dialect.text_collation()) {
        definition.extra(collation);
    }
    definition
}

/// What is said of a whole table. MariaDB and MySQL compare texts byte by byte, trailing spaces included, under a name
/// that the other does not know.
async fn table_options(link: &mut dyn Link, create: &mut TableCreateStatement) -> Result<(), StoreError> {
    let dialect = link.dialect();
    match dialect {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {}
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {}
        #[cfg(feature = "mysql")]
        Dialect::Mysql => {
            let mariadb = link.number("SELECT VERSION() LIKE '%MariaDB%'".to_owned(), nothing()).await;
            let mariadb = mariadb.map_err(|error| dialect.unavailable(error))? == Some(1);
            let collation = if mariadb { "utf8mb4_nopad_bin" } else { "utf8mb4_0900_bin" };
            create.engine("InnoDB").character_set("utf8mb4").collate(collation);
        }
    }
    let _ = (link, create);
    Ok(())
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
    table_options(link, &mut create).await?;
    let unique = table.unique.iter().map(|columns| index(table.name, columns, true));
    let mut indexes: Vec<_> =
        unique.chain(table.indexes.iter().map(|columns| index(table.name, columns, false))).collect();
    if dialect.indexes_with_table() {
        for index in &mut indexes {
            create.index(index);
        }
        return run(link, dialect.build_table(&create)).await;
    }
    run(link, dialect.build_table(&create)).await?;
    for index in &indexes {
        run(link, dialect.build_index(index)).await?;
    }
    Ok(())
}

/// The new one first: a program that serves meanwhile is never without.
async fn replace_index(link: &mut dyn Link, new: &NewIndex) -> Result<(), StoreError> {
    let dialect = link.dialect();
    if !has_index(link, new.table, new.columns).await? {
        run(link, dialect.build_index(&index(new.table, new.columns, false))).await?;
    }
    let old = index_name(new.table, new.instead_of, false);
    match dialect {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => run(link, format!("DROP INDEX IF EXISTS {old}")).await,
        #[cfg(feature = "postgres")]
        Dialect::Postgres => run(link, format!("DROP INDEX IF EXISTS {old}")).await,
        #[cfg(feature = "mysql")]
        Dialect::Mysql if has_index(link, new.table, new.instead_of).await? => {
            run(link, format!("DROP INDEX {old} ON {}", new.table)).await
        }
        #[cfg(feature = "mysql")]
        Dialect::Mysql => Ok(()),
    }
}

/// Is it there, where the database can't be told to make it if not? MySQL knows no such clause, and each of its statements
/// about the schema is a transaction of its own: a migration that was cut off may have made it.
#[cfg_attr(not(feature = "mysql"), allow(unused_variables, reason = "the others need not be asked"))]
async fn has_index(link: &mut dyn Link, table: &str, columns: &[&str]) -> Result<bool, StoreError> {
    let dialect = link.dialect();
    let name = index_name(table, columns, false);
    match dialect {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => Ok(false),
        #[cfg(feature = "postgres")]
        Dialect::Postgres => Ok(false),
        #[cfg(feature = "mysql")]
        Dialect::Mysql => {
            let question = format!(
                "SELECT COUNT(*) FROM information_schema.statistics \
                 WHERE table_schema = DATABASE() AND table_name = '{table}' AND index_name = '{name}'"
            );
            let found = link.number(question, nothing()).await.map_err(|error| dialect.unavailable(error))?;
            Ok(found.is_some_and(|columns| columns > 0))
        }
    }
}

fn index_name(table: &str, columns: &[&str], unique: bool) -> String {
    let prefix = if unique { "ux" } else { "ix" };
    format!("{prefix}_{table}_{}", columns.join("_"))
}

fn index(table: &'static str, columns: &[&'static str], unique: bool) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(index_name(table, columns, unique)).table(table).if_not_exists();
    if unique {
        index.unique();
    }
    for column in columns {
        index.col(*column);
    }
    index
}

async fn create_sequences(link: &mut dyn Link, names: &[&'static str]) -> Result<(), StoreError> {
    let dialect = link.dialect();
    let (name, value) = (Column::text("name", 64), Column::int("value"));
    let mut create = Create::create();
    create.table(SEQUENCES).if_not_exists().col(column(dialect, &name)).col(column(dialect, &value));
    create.primary_key(Index::create().col("name"));
    table_options(link, &mut create).await?;
    run(link, dialect.build_table(&create)).await?;
    for name in names {
        let mut known = Query::select();
        known.column("value").from(SEQUENCES).and_where(sea_query::Expr::col("name").eq(*name));
        let (sql, values) = dialect.build(&known);
        if link.number(sql, values).await.map_err(|error| dialect.unavailable(error))?.is_some() {
            continue;
        }
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
