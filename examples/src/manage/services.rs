//! `service list`.

use std::io::Write;
use std::process::ExitCode;

use jiff::SignedDuration;
use nova_core::aggregate::ZoneMap;
use nova_core::clock::Clock;
use nova_core::options::{Config, common};

use super::{Done, database};
use crate::cli::StartError;
use crate::process::SystemClock;

pub(super) async fn list(config: &Config, out: &mut (dyn Write + Send)) -> Done {
    let store = database::open_current(config).await?;
    let services = store.list_services().await.map_err(|e| StartError::new("the services cannot be listed", &e))?;
    let aggregates =
        store.list_aggregates().await.map_err(|e| StartError::new("the aggregates cannot be listed", &e))?;
    let zones = ZoneMap::of(&aggregates);
    let (now, down) = (SystemClock.now(), config.get(&common::SERVICE_DOWN_TIME));
    let down = SignedDuration::try_from(down).unwrap_or(SignedDuration::MAX);
    let mut rows = vec![["Binary", "Host", "Zone", "Status", "State", "Updated"].map(str::to_owned)];
    for service in services {
        let status = if service.disabled { "disabled" } else { "enabled" };
        let state = if service.is_up(now, down) { "up" } else { "down" };
        let zone = match service.binary.as_str() {
            "nova-compute" => zones.zone(&service.host, &service.zone),
            _ => &service.zone,
        };
        let zone = zone.to_string();
        rows.push([
            service.binary,
            service.host.to_string(),
            zone,
            status.to_owned(),
            state.to_owned(),
            service.updated_at.to_string(),
        ]);
    }
    out.write_all(table(&rows).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Columns as wide as their widest cell, two spaces apart.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a", "bb", "c"], ["aaaa", "b", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "a     bb  c\naaaa  b\n");
    }
}
