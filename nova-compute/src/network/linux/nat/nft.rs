//! Tables of nftables, each replaced as a whole in one transaction when it is not what it is to be.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::super::namespace;
use crate::network::PlumbingError;

/// A table as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// `ip`, `inet`, `bridge`.
    pub family: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What is in it.
    pub body: String,
}

impl Table {
    /// The transaction that makes it so. Connections that are known stay as they are.
    fn transaction(&self) -> String {
        let head = format!("table {} {}", self.family, self.name);
        format!("{head}\ndelete {head}\n{head} {{\n{}}}\n", self.body)
    }
}

/// A namespace, and a table in it: family and name.
type Place = (Option<u64>, &'static str, &'static str);

/// Tables by where they are, with what the kernel said of each after it was made. What it says is no more the same when
/// somebody has changed it.
#[derive(Debug, Default)]
pub struct Tables {
    made: Mutex<HashMap<Place, (Table, String)>>,
}

impl Tables {
    /// Has the namespace hold that table. `number` tells one namespace of that name from another.
    pub async fn ensure(&self, space: Option<&str>, number: Option<u64>, table: &Table) -> Result<(), PlumbingError> {
        let place = (number, table.family, table.name);
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&place).cloned();
        if let Some((made, listing)) = made
            && made == *table
            && list(space, table.family, table.name).await? == Some(listing)
        {
            return Ok(());
        }
        namespace::run(space, "nft", &["-f", "-"], Some(table.transaction())).await?;
        if let Some(listing) = list(space, table.family, table.name).await? {
            self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(place, (table.clone(), listing));
        }
        Ok(())
    }

    /// Removes a table; fine if it is not there.
    pub async fn remove(
        &self,
        space: Option<&str>,
        family: &'static str,
        name: &'static str,
    ) -> Result<(), PlumbingError> {
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|place, _| (place.1, place.2) != (family, name));
        if list(space, family, name).await?.is_some() {
            namespace::run(space, "nft", &["delete", "table", family, name], None).await?;
        }
        Ok(())
    }

    /// Forgets namespaces that are gone.
    pub fn keep(&self, numbers: &[u64]) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|place, _| place.0.is_none_or(|number| numbers.contains(&number)));
    }
}

/// What the kernel has; `None`: no such table.
async fn list(space: Option<&str>, family: &str, name: &str) -> Result<Option<String>, PlumbingError> {
    let output = namespace::run_quietly(space, "nft", &["-nn", "list", "table", family, name], None).await?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_replaced_in_one_transaction() {
        let table = Table { family: "inet", name: "nova_nat", body: "  chain a {\n  }\n".into() };
        let text = "table inet nova_nat\ndelete table inet nova_nat\ntable inet nova_nat {\n  chain a {\n  }\n}\n";
        assert_eq!(table.transaction(), text);
    }
}
