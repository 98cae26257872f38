use std::time::Duration;

use proptest::prelude::*;

use super::common::{self, registry};
use super::substitute::{Piece, pieces};
use super::*;

fn file(path: &str) -> Source {
    Source::File { path: path.to_owned() }
}

fn variable(name: &str) -> Source {
    Source::Environment { variable: name.to_owned() }
}

fn load(sources: &[(Source, &str)]) -> Result<Config, Vec<ConfigError>> {
    let home = (variable("HOME"), "/home/op");
    Config::load(&registry(), sources.iter().cloned().chain([home]))
}

fn from_file(text: &str) -> Result<Config, Vec<ConfigError>> {
    load(&[(file("nova.conf"), text)])
}

/// The messages of everything that is wrong with a file.
fn wrong(text: &str) -> Vec<String> {
    from_file(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_good_and_have_their_types() {
    let config = load(&[]).unwrap();
    assert_eq!(config.get(&common::STATE_PATH), std::path::Path::new("/home/op/.local/share/nova"));
    assert_eq!(config.get(&common::DATABASE_CONNECTION), "sqlite:/home/op/.local/share/nova/nova.db");
    assert_eq!(config.get(&common::API_LISTEN), Address { host: "127.0.0.1".into(), port: 8774 });
    assert_eq!(config.get(&common::API_PUBLIC_URL), None);
    assert_eq!(config.get(&common::MAX_REQUEST_BODY_SIZE), 114_688);
    assert_eq!(config.get(&common::SERVICE_DOWN_TIME), Duration::from_secs(60));
    assert_eq!(config.get(&common::ENABLED_APIS), ["identity", "osapi_compute", "image", "network", "volume"]);
    assert!((config.get(&common::INITIAL_CPU_ALLOCATION_RATIO) - 4.0).abs() < f64::EPSILON);
    assert!(!config.get(&common::DEBUG));
    assert_eq!(config.settings().count(), common::OPTIONS.len() - 1, "all but the free sections");
}

#[test]
fn operators_face_fewer_than_sixty_well_described_options() {
    assert!(common::OPTIONS.len() < 60, "{}", common::OPTIONS.len());
    assert_eq!(registry().options().count(), common::OPTIONS.len(), "a name is declared twice");
    for option in common::OPTIONS {
        assert!(option.help.len() > 15 && !option.help.contains('\n'), "{}", option.key());
        assert!(option.optional || option.default.is_some(), "{}", option.key());
    }
}

#[test]
fn later_sources_win_whatever_the_order_they_come_in() {
    let cli = (Source::CommandLine, "DEFAULT.host=cli");
    let env = (variable("NOVA_DEFAULT__HOST"), "env");
    let first = (file("a.conf"), "host = a\n");
    let second = (file("b.conf"), "[DEFAULT]\nhost = b\n");
    let found = (Source::Default, "host=found");
    let host = |sources: &[(Source, &str)]| {
        let config = load(sources).unwrap();
        (config.get(&common::HOST), config.setting("DEFAULT", "host").unwrap().origin.to_string())
    };
    assert_eq!(host(&[]), ("localhost".into(), "default".into()));
    assert_eq!(host(std::slice::from_ref(&found)), ("found".into(), "default".into()));
    assert_eq!(host(&[first.clone(), second.clone(), found.clone()]), ("b".into(), "b.conf:2".into()));
    assert_eq!(host(&[second.clone(), first.clone()]), ("a".into(), "a.conf:1".into()));
    assert_eq!(host(&[env.clone(), first.clone()]).1, "environment variable NOVA_DEFAULT__HOST");
    assert_eq!(host(&[cli, env, first, second, found]), ("cli".into(), "command line".into()));
}

#[test]
fn variables_are_matched_in_any_case_and_strangers_ignored() {
    let config = load(&[
        (variable("nova_oslo_middleware__max_request_body_size"), "2048"),
        (variable("NOVA_TEST_AMQP_URL"), "not ours"),
        (variable("PATH"), "/bin"),
    ]);
    assert_eq!(config.unwrap().get(&common::MAX_REQUEST_BODY_SIZE), 2048);
    let errors = load(&[(variable("NOVA_DEFAULT__HOSTT"), "x"), (variable("NOVA_QUOTA__CORES"), "many")]).unwrap_err();
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "environment variable NOVA_DEFAULT__HOSTT: DEFAULT.hostt: no such option; did you mean 'DEFAULT.host'?",
            "environment variable NOVA_QUOTA__CORES: quota.cores: 'many' is not allowed; \
             allowed: a whole number of at least -1",
        ]
    );
}

#[test]
fn every_mistake_is_reported_with_its_line() {
    let text = "\
[DEFAULT]
compute_driver = xen
transport_uri = memory:
connection = sqlite:x

[databse]
connection = memory:
[quota]
  lost = 1
cores = 1.5
= 3
a line
[api
[]
[api]
listen = somewhere
[scheduler]
max_attempts = 0
";
    assert_eq!(
        wrong(text),
        [
            "nova.conf:2: DEFAULT.compute_driver: 'xen' is not allowed; allowed: fake, libvirt",
            "nova.conf:3: DEFAULT.transport_uri: no such option; did you mean 'DEFAULT.transport_url'?",
            "nova.conf:4: DEFAULT.connection: no such option; did you mean 'database.connection'?",
            "nova.conf:6: no such section [databse]; did you mean 'database'?",
            "nova.conf:9: the line starts with white space but continues nothing",
            "nova.conf:10: quota.cores: '1.5' is not allowed; allowed: a whole number of at least -1",
            "nova.conf:11: there is no name before '='",
            "nova.conf:12: expected 'key = value', a [section] or a comment",
            "nova.conf:13: a section header must end with ']'",
            "nova.conf:14: the section has no name",
            "nova.conf:16: api.listen: 'somewhere' is not allowed; allowed: host:port, [address]:port for IPv6",
            "nova.conf:18: scheduler.max_attempts: '0' is not allowed; allowed: a whole number from 1 to 100 hosts",
        ]
    );
}

#[test]
fn each_kind_says_what_it_takes() {
    for (line, problem) in [
        ("[DEFAULT]\ndebug = maybe", "'maybe' is not allowed; allowed: true or false"),
        ("[DEFAULT]\nreport_interval = 0", "'0' is not allowed; allowed: a number from 1 to 3600 seconds"),
        ("[DEFAULT]\nstate_path =", "'' is not allowed; allowed: a path"),
        (
            "[DEFAULT]\ninitial_ram_allocation_ratio = NaN",
            "'NaN' is not allowed; allowed: a number from 0.01 to 1000 times what the host has",
        ),
        (
            "[api]\npublic_url = cloud.example.org",
            "'cloud.example.org' is not allowed; allowed: a URL that starts with http:, https:",
        ),
        (
            "[DEFAULT]\ntransport_url = kombu://u:hunter2@h",
            "'kombu://u:***@h' is not allowed; allowed: a URL that starts with memory:, rabbit:, amqp:, amqps:",
        ),
        ("[DEFAULT]\nhost = $nobody", "'$nobody' stands for no option; write '$$' for a dollar sign"),
        ("[DEFAULT]\nhost = $host", "its value contains itself"),
        ("[DEFAULT]\nservice_down_time = 10", "must be longer than DEFAULT.report_interval, which is 10 seconds"),
        ("[libvirt]\ncpu_mode = custom", "'custom' needs libvirt.cpu_models"),
    ] {
        let found = wrong(line);
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        assert!(found[0].starts_with("nova.conf:2: ") && found[0].ends_with(problem), "{line}: {found:?}");
    }
    let errors = load(&[(Source::CommandLine, "host")]).unwrap_err();
    assert_eq!(errors[0].to_string(), "command line: expected group.option=value, not 'host'");
    let homeless = Config::defaults(&registry()).unwrap_err();
    assert_eq!(homeless.len(), 1, "what depends on it is not reported again: {homeless:?}");
    assert!(homeless[0].to_string().ends_with("HOME is not set"), "{}", homeless[0]);
}

#[test]
fn a_circle_is_reported_once_and_ends() {
    let found = wrong("[DEFAULT]\nhost = $default_availability_zone\ndefault_availability_zone = ${host}x\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("its value contains itself"));
}

#[test]
fn names_stand_for_values_of_the_same_group_first() {
    let config = from_file(
        "[DEFAULT]\nhost = h1\nstate_path = /srv\ninstance_name_template = ${host}-$api.max_limit-\\$1-$$x-100$\n\
         [api]\nmax_limit = 7\n[database]\nconnection = sqlite:$state_path/${host}.db\n",
    )
    .unwrap();
    assert_eq!(config.get(&common::INSTANCE_NAME_TEMPLATE), "h1-7-$1-$x-100$");
    assert_eq!(config.get(&common::DATABASE_CONNECTION), "sqlite:/srv/h1.db");
    assert_eq!(pieces("a$b.c.d"), [Piece::Text("a"), Piece::Name("b.c"), Piece::Text(".d")]);
    assert_eq!(pieces("${a b}$"), [Piece::Text("$"), Piece::Text("{a b}"), Piece::Text("$")]);
}

#[test]
fn the_form_is_that_of_oslo_config() {
    let config = from_file(
        "\u{feff}host: before-any-section\r\n; note\n[DEFAULT]\nenabled_apis = one,\n    two,\n\tthree\n\
         # host = commented\ninstance_name_template = \"  spaced  \"\n[libvirt]\ncpu_mode = none ; not a comment\n",
    );
    let errors = config.unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].origin.line, Some(10), "{}", errors[0]);
    let config =
        from_file("host: x\n[DEFAULT]\nenabled_apis = one,\n    two\ninstance_name_template = \"  s \"\n").unwrap();
    assert_eq!(config.get(&common::HOST), "x");
    assert_eq!(config.get(&common::ENABLED_APIS), ["one", "two"]);
    assert_eq!(config.get(&common::INSTANCE_NAME_TEMPLATE), "  s ");
    let last = from_file("[DEFAULT]\nhost = a\nhost = b\n").unwrap();
    assert_eq!(last.get(&common::HOST), "b");
}

const MULTI: Opt<Vec<String>> = Opt::multi("bus", "peer").help("A peer.");
const KEY: Opt<String> = Opt::string("bus", "key").default("fallback").secret().help("A key.");

#[test]
fn repeated_lines_add_up_within_the_source_that_wins() {
    let registry = Registry::new().with(&[MULTI.decl()]);
    let a = (file("a"), "[bus]\npeer = 1\npeer = 2\n");
    let b = (file("b"), "[bus]\npeer = 3\n");
    let files = Config::load(&registry, [a.clone(), b.clone()]).unwrap();
    assert_eq!(files.get(&MULTI), ["1", "2", "3"]);
    let cli = (Source::CommandLine, "bus.peer=4");
    assert_eq!(Config::load(&registry, [a, b, cli]).unwrap().get(&MULTI), ["4"]);
    assert!(Config::defaults(&registry).unwrap().get(&MULTI).is_empty());
}

#[test]
fn sections_of_free_names_are_known_by_their_prefix() {
    let config =
        from_file("[pipeline:meta]\npipeline = request_id faults metadata\n[pipeline:b]\npipeline = x\n").unwrap();
    assert_eq!(config.sections("pipeline"), ["b", "meta"]);
    assert_eq!(config.get_in("pipeline:meta", &common::PIPELINE), ["request_id", "faults", "metadata"]);
    assert!(config.get_in("pipeline:none", &common::PIPELINE).is_empty());
    assert_eq!(wrong("[pipeline:meta]\nfilters = a\n").len(), 1);
    assert_eq!(wrong("[pipelines:meta]\npipeline = a\n").len(), 1);
}

#[test]
fn secrets_are_never_shown() {
    let registry = common::registry().with(&[KEY.decl()]);
    let text = "[DEFAULT]\nstate_path = /s\ntransport_url = rabbit://nova:canary1@mq:5672/v\n\
                [database]\nconnection = postgresql://nova@db/nova?user=x&password=canary2&a=b\n[bus]\nkey = canary3\n";
    let old = Config::load(&registry, [(file("f"), "[DEFAULT]\nstate_path = /s\n[bus]\nkey = canary0\n")]).unwrap();
    let config = Config::load(&registry, [(file("f"), text)]).unwrap();
    assert_eq!(config.get(&KEY), "canary3");
    let explained: String = config.settings().map(|s| config.explain(&s.key()).unwrap().to_string()).collect();
    let report = format!("{:?}", old.reload(&config));
    for shown in [format!("{config:?}"), explained, report] {
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("rabbit://nova:***@mq:5672/v"), "{shown}");
    }
}

#[test]
fn explain_tells_all_about_an_option() {
    let config = from_file("\n[quota]\nram = 1024\n").unwrap();
    let text = config.explain("quota.ram").unwrap().to_string();
    assert_eq!(
        text,
        "quota.ram = 1024\n  from     nova.conf:3\n  default  51200\n  allowed  a whole number of at least -1 MiB\n  \
         unit     MiB\n  reloads  on SIGHUP\n  read by  nova-api\n  \
         Memory that the servers of a project may have together; -1 is any amount."
    );
    let host = config.explain("host").unwrap();
    assert_eq!((host.key.as_str(), host.default.as_str()), ("DEFAULT.host", "the machine's host name"));
    assert_eq!(config.explain("quota.rum"), None);
    assert_eq!(config.given("quota.ram").as_deref(), Some("nova.conf:3"));
    assert_eq!(config.given("quota.cores"), None);
}

#[test]
fn a_reload_tells_what_it_took() {
    let old = from_file("[quota]\ncores = 5\n").unwrap();
    let new = from_file("[quota]\ncores = 6\n[api]\nlisten = 0.0.0.0:80\n").unwrap();
    let report = old.reload(&new);
    let change = |key: &str, from: &str, to: &str| Change { key: key.into(), from: from.into(), to: to.into() };
    assert_eq!(report.reloaded, [change("quota.cores", "5", "6")]);
    assert_eq!(report.needs_restart, [change("api.listen", "127.0.0.1:8774", "0.0.0.0:80")]);
    assert_eq!(report.unchanged, old.settings().count() - 2);
    let running = old.reloaded(&new);
    assert_eq!(running.get(&common::QUOTA_CORES), 6);
    assert_eq!(running.get(&common::API_LISTEN).port, 8774);
}

/// All values, without where they came from.
fn values(config: &Config) -> Vec<(String, Value)> {
    config.settings().map(|setting| (setting.key(), setting.value.clone())).collect()
}

#[test]
fn the_sample_with_its_marks_removed_says_the_defaults() {
    let sample = registry().sample();
    let commented = from_file(&sample).unwrap();
    assert_eq!(values(&commented), values(&load(&[]).unwrap()));
    let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    let opened: String = sample
        .lines()
        .map(|line| format!("{}\n", if is_setting(line) { line.trim_start_matches('#') } else { line }))
        .collect();
    let set = from_file(&opened).unwrap();
    let fixed =
        |config| -> Vec<_> { values(config).into_iter().filter(|(key, _)| !key.starts_with("pipeline:")).collect() };
    assert_eq!(fixed(&set), values(&commented));
    let from_file = set.settings().filter(|setting| setting.origin.line.is_some()).count();
    assert_eq!(from_file, common::OPTIONS.len(), "every option stands in the sample");
}

#[test]
fn an_old_name_is_understood_and_told() {
    const SHADE: Opt<String> = Opt::string("paint", "shade").default("grey").old_names(&[("DEFAULT", "color")]);
    const OPTIONS: &[OptionDecl] = &[SHADE.decl()];
    let registry = Registry::new().with(OPTIONS);
    let load = |sources: &[(Source, &str)]| Config::load(&registry, sources.iter().cloned()).unwrap();
    let old = load(&[(file("nova.conf"), "[DEFAULT]\ncolor = red\n")]);
    assert_eq!(
        (old.get(&SHADE), old.renamed()),
        ("red".into(), vec!["nova.conf:2: DEFAULT.color is called paint.shade now".to_owned()])
    );
    assert!(old.explain("paint.shade").unwrap().origin.ends_with("by its old name DEFAULT.color"));
    // In one file the name of today counts, whichever comes first; of two sources the later one.
    for both in ["[DEFAULT]\ncolor = red\n[paint]\nshade = blue\n", "[paint]\nshade = blue\n[DEFAULT]\ncolor = red\n"] {
        let both = load(&[(file("nova.conf"), both)]);
        assert_eq!((both.get(&SHADE), both.renamed()), ("blue".into(), Vec::new()));
    }
    let later = load(&[(file("nova.conf"), "[paint]\nshade = blue\n"), (variable("NOVA_DEFAULT__COLOR"), "red")]);
    assert_eq!(later.get(&SHADE), "red");
    assert_eq!(load(&[(Source::CommandLine, "color=green")]).get(&SHADE), "green");
    assert!(registry.sample().contains("# Old name: DEFAULT.color.\n"));
}

#[test]
fn addresses_read_and_write() {
    for text in ["127.0.0.1:80", "[::1]:8774", "cloud.example.org:0"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    for text in ["", "host", ":80", "::1:80", "[::1:80", "h:+80", "h:99999", "a b:1", "[]:1"] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
}

#[test]
fn a_value_that_was_loaded_can_be_written_and_loaded_again() {
    let first =
        from_file("[DEFAULT]\nhost = \" a$$b \"\n[DEFAULT]\nenabled_apis = x,y\n[pipeline:p]\npipeline = a b\n")
            .unwrap();
    let again = from_file(&first.to_ini()).unwrap();
    assert_eq!(values(&first), values(&again));
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in ".{0,200}", more in "(\\[[a-zA-Z:]{0,9}\\]?\n|[ \t]?[a-z_]{0,9}[=:]?.{0,9}\n){0,9}") {
        let _ = from_file(&text);
        let _ = from_file(&more);
        let _ = load(&[(Source::CommandLine, &text), (variable(&text), &more)]);
    }

    #[test]
    fn names_in_any_text_end(text in "[$\\\\{}a.é_1]{0,40}") {
        let whole: usize = pieces(&text).iter().map(|piece| match piece { Piece::Text(t) | Piece::Name(t) => t.len() }).sum();
        prop_assert!(whole <= text.len());
    }

    #[test]
    fn what_is_rendered_is_read_back(
        entries in prop::collection::vec(
            ("[a-zA-Z][a-z:0-9]{0,8}", "[a-z][a-z_0-9]{0,8}", "[ -~é]{0,12}|[!-~]{1,8}(\n[!-~]{1,8}){0,3}"), 0..12),
    ) {
        let text = ini::render(entries.iter().map(|(g, k, v)| (g.as_str(), k.as_str(), v.as_str())));
        let parsed = ini::parse(&text);
        prop_assert_eq!(&parsed.errors, &Vec::new());
        let read: Vec<_> = parsed.entries.into_iter().map(|e| (e.section, e.key, e.value)).collect();
        prop_assert_eq!(read, entries);
    }
}
