//! `server show`: where is it stuck?

use std::io::Write;
use std::process::ExitCode;

use nova::waiting::waiting_of;
use nova_core::ids::InstanceId;
use nova_core::migration::MigrationStatus;
use nova_core::options::Config;
use nova_core::state::VmState;
use nova_db::{MigrationQuery, StoreError};

use super::{Done, database};
use crate::cli::StartError;

pub(super) async fn show(config: &Config, id: &str, out: &mut (dyn Write + Send)) -> Done {
    let none = || StartError::because(format!("there is no server {id}"));
    let id: InstanceId = id.parse().map_err(|_| none())?;
    let store = database::open_current(config).await?;
    let failed = |error: &StoreError| StartError::new("the database cannot be used", error);
    let server = match store.get_instance(id).await {
        Ok(server) => server,
        Err(StoreError::NotFound { .. }) => return Err(none().into()),
        Err(error) => return Err(failed(&error).into()),
    };
    let task = server.task_state.map_or("none", |task| task.as_str());
    let host = server.host.as_ref().map_or("none", |host| host.as_str());
    writeln!(out, "server     {id} {}", server.display_name)?;
    writeln!(out, "state      {}, task {task}, power {}", server.vm_state, server.power_state)?;
    writeln!(out, "host       {host}")?;
    writeln!(out, "changed    {:.0}", server.updated_at)?;
    for waiting in waiting_of(&*store, &server).await.map_err(|error| failed(&error))? {
        writeln!(out, "waits for  {waiting}")?;
    }
    let query = MigrationQuery { instance: Some(id), ..MigrationQuery::open() };
    for one in store.list_migrations(&query).await.map_err(|error| failed(&error))? {
        let to = one.dest_compute.as_ref().map_or("a host that is not chosen yet", |host| host.as_str());
        writeln!(
            out,
            "move       {} {}: {}, from {} to {to}",
            one.migration_type, one.id, one.status, one.source_compute
        )?;
        if one.status == MigrationStatus::Finished && server.vm_state == VmState::Resized {
            let since = one.updated_at.unwrap_or(one.created_at);
            writeln!(out, "waits for  its owner: confirmResize or revertResize, since {since:.0}")?;
        }
    }
    if let Some(fault) = &server.fault {
        let details = if fault.details.is_empty() { String::new() } else { format!(" ({})", fault.details) };
        writeln!(out, "fault      {:.0} {}{details}", fault.created, fault.message)?;
    }
    Ok(ExitCode::SUCCESS)
}
