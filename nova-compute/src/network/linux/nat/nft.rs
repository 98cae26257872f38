//! Tables of nftables, each replaced as a whole in one transaction when it is not what it is to be.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::firewall::Nft;
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

/// A table that was made.
#[derive(Debug, Clone)]
struct Made {
    table: Table,
    /// What the kernel said of it then. It says something else when somebody has changed it.
    listing: String,
    /// The number of the namespace's ruleset when it was last looked at: with the same there is nothing to look at.
    generation: u32,
}

/// Tables by where they are.
#[derive(Debug, Default)]
pub struct Tables {
    made: Mutex<HashMap<Place, Made>>,
    transactions: AtomicU32,
}

impl Tables {
    /// Has the namespace hold that table. `number` tells one namespace of that name from another.
    pub async fn ensure(&self, space: Option<&str>, number: Option<u64>, table: &Table) -> Result<(), PlumbingError> {
        let place = (number, table.family, table.name);
        let known = self.lock().get(&place).cloned().filter(|made| made.table == *table);
        let nft = Nft::new(space.map(str::to_owned));
        // Asked for before it is looked at: what happens in between is looked at next time.
        let mut generation = nft.generation().await?;
        if let Some(made) = known {
            if made.generation == generation {
                return Ok(());
            }
            if nft.list_table(table.family, table.name).await?.as_ref() == Some(&made.listing) {
                self.lock().insert(place, Made { generation, ..made });
                return Ok(());
            }
        }
        nft.run(table.transaction()).await?;
        self.count(number);
        let listing = nft.list_table(table.family, table.name).await?;
        // That was one transaction; another one in between would make it two.
        generation = generation.wrapping_add(1);
        if let Some(listing) = listing {
            self.lock().insert(place, Made { table: table.clone(), listing, generation });
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Place, Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many transactions it made in the host's own namespace since it was asked last. Who watches the number of that
    /// ruleset knows by this that they were not somebody else's.
    pub fn transactions(&self) -> u32 {
        self.transactions.swap(0, Ordering::Relaxed)
    }

    fn count(&self, number: Option<u64>) {
        if number.is_none() {
            self.transactions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes a table of the host; fine if it is not there.
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
        let nft = Nft::new(space.map(str::to_owned));
        if nft.list_table(family, name).await?.is_some() {
            nft.run(format!("delete table {family} {name}\n")).await?;
            self.count(None);
        }
        Ok(())
    }

    /// Forgets namespaces that are gone.
    pub fn keep(&self, numbers: &[u64]) {
        self.lock().retain(|place, _| place.0.is_none_or(|number| numbers.contains(&number)));
    }
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
