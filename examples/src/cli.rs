//! The command line that every binary understands, and how a start that fails is told.

use std::path::PathBuf;
use std::process::ExitCode;

use nova_core::options::{Config, Registry, Source, common};

/// Where the configuration comes from; later wins over earlier in the order file, environment, command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// A configuration file in INI form; may be given several times, later ones win
    #[arg(long = "config-file", value_name = "FILE", global = true)]
    pub config_files: Vec<PathBuf>,
    /// Sets one option; any option may also be given as NOVA_GROUP__OPTION in the environment
    #[arg(long = "set", value_name = "GROUP.OPTION=VALUE", global = true)]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// Reads all sources.
    ///
    /// # Errors
    /// Everything that is wrong, a line each, with file, line and option.
    pub fn load(&self) -> Result<Config, StartError> {
        let mut sources = vec![(Source::Default, format!("DEFAULT.host={}", host_name()))];
        for path in &self.config_files {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|error| StartError::config(vec![format!("{name}: cannot be read: {error}")]))?;
            sources.push((Source::File { path: name }, text));
        }
        for (variable, value) in std::env::vars_os() {
            if let (Ok(variable), Ok(value)) = (variable.into_string(), value.into_string()) {
                sources.push((Source::Environment { variable }, value));
            }
        }
        sources.extend(self.set.iter().map(|set| (Source::CommandLine, set.clone())));
        Config::load(&registry(), sources)
            .map_err(|errors| StartError::config(errors.iter().map(ToString::to_string).collect()))
    }
}

/// Every option of every part: one file serves all binaries.
pub fn registry() -> Registry {
    common::registry()
        .with(nova::api::API_OPTIONS)
        .with(nova::api::compute::COMPUTE_API_OPTIONS)
        .with(nova::identity::IDENTITY_OPTIONS)
        .with(nova::image::IMAGE_OPTIONS)
        .with(nova::network::NETWORK_OPTIONS)
        .with(nova::network::SEGMENT_OPTIONS)
        .with(nova::network::service::HOSTS_OPTIONS)
        .with(nova::network::NEUTRON_OPTIONS)
        .with(nova::conductor::CONDUCTOR_OPTIONS)
        .with(nova::conductor::MOVE_OPTIONS)
        .with(nova::metadata::METADATA_OPTIONS)
        .with(nova::console::CONSOLE_OPTIONS)
        .with(nova::scheduler::SCHEDULER_OPTIONS)
        .with(nova::volume::VOLUME_OPTIONS)
        .with(nova::volume::CINDER_OPTIONS)
        .with(nova::volume::driver::VOLUME_DRIVER_OPTIONS)
        .with(nova_compute::COMPUTE_OPTIONS)
        .with(nova_compute::NETWORK_HOST_OPTIONS)
        .with(nova_core::options::hosts::OPTIONS)
        .with(nova_virt::DRIVER_OPTIONS)
        .check(nova_core::options::hosts::names_fit)
        .check(nova_core::options::hosts::cpu_sets_fit)
        .check(nova::network::ranges_fit)
        .check(nova::network::segments_fit)
        .check(nova::network::service::gateways_fit)
        .check(nova_compute::network_options_fit)
        .check(crate::hosts::plumbing_fits)
        .check(nova::network::neutron_fits)
        .check(nova::volume::cinder_fits)
        .check(nova::volume::driver::volume_driver_fits)
}

/// The machine's name.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

/// Why a program did not start: what is told, and the exit code.
#[derive(Debug)]
pub struct StartError {
    lines: Vec<String>,
    code: u8,
}

impl StartError {
    /// Something in the configuration: exit code 2.
    pub fn config(lines: Vec<String>) -> Self {
        Self { lines, code: 2 }
    }

    /// Something around the program: exit code 1.
    pub fn new(doing: &str, error: &dyn std::error::Error) -> Self {
        Self { lines: vec![format!("{doing}: {}", nova_core::error::chain(error))], code: 1 }
    }

    /// Is it something in the configuration?
    pub fn is_configuration(&self) -> bool {
        self.code == 2
    }

    /// A plain reason: exit code 1.
    pub fn because(line: impl Into<String>) -> Self {
        Self { lines: vec![line.into()], code: 1 }
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for StartError {}

/// Ends a program: nothing to say, or the reasons on standard error and a code that is not zero.
pub fn exit(program: &str, result: Result<(), StartError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in &error.lines {
                eprintln!("{program}: {line}");
            }
            ExitCode::from(error.code)
        }
    }
}
