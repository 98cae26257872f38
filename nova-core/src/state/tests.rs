//! The whole table walked, against a second encoding of it: the text below, in the form of the upstream documentation.

use std::collections::BTreeSet;

use super::*;

/// Columns: actions | vm_state | task | flags | first task | ends in.
///
/// vm: `any`, or a list. task: `N` must be NULL, `*` any, `N,a,b` NULL or one of these, `=a` only this, `!a,b` none of these.
/// flags: `L` refused when locked; `H` needs a host, `H+` a live one, `H-` a dead one, `HO` a live one unless offloaded,
/// `h` the host is looked at before the states; `U` need not have been launched; `V87`, `V` not volume-backed (before 2.87);
/// `S20` shelved states from 2.20; `D` a repeat is ignored.
const TABLE: &str = "
Create | building | N | U | scheduling | active
Delete | any | * | L U D | deleting | deleted
SoftDelete | any | * | L U D | soft-deleting | soft-delete
Restore | soft-delete | N | L | restoring | active
ForceDelete | any | * | L U | deleting | deleted
Start | stopped | N | L H h | powering-on | active
Stop | active error | N | L H h | powering-off | stopped
RebootSoft | active | N | L | rebooting | active
RebootHard | active stopped paused suspended error | N,rebooting,reboot_pending,reboot_started,rebooting_hard,resuming,unpausing,pausing,suspending | L | rebooting_hard | active
Pause | active | N | L | pausing | paused
Unpause | paused | N | L | unpausing | active
Suspend | active | N | L | suspending | suspended
Resume | suspended | N | L | resuming | active
Rescue | active stopped error | N | L V87 | rescuing | rescued
Unrescue | rescued | N | L | unrescuing | active
Rebuild | active stopped error | N | L | rebuilding | previous
Evacuate | active stopped error | * | H- | rebuilding | previous
Resize Migrate | active stopped | N | L H+ | resize_prep | resized
ConfirmResize | resized | N | L | - | active
RevertResize | resized | N | L | resize_reverting | active
LiveMigrate | active paused | N | L | migrating | unchanged
ForceCompleteLiveMigration | active | =migrating | L | - | unchanged
AbortLiveMigration | any | =migrating | L | - | unchanged
Shelve | active stopped paused suspended | N | L | shelving | shelved
ShelveOffload | shelved | N | L | shelving_offloading | shelved_offloaded
Unshelve | shelved shelved_offloaded | N | L | unshelving | active
CreateImage | active stopped paused suspended | N | | image_snapshot_pending | unchanged
CreateBackup | active stopped paused suspended | N | V | image_backup | unchanged
ChangePassword | active | N | L | updating_password | unchanged
TriggerCrashDump | active paused rescued resized error | N | L H h | - | unchanged
AttachVolume | active paused stopped resized soft-delete shelved shelved_offloaded | N | L S20 | - | unchanged
DetachVolume | active paused stopped resized soft-delete shelved shelved_offloaded | N | L S20 HO | - | unchanged
SwapVolume | active paused resized | N | L | - | unchanged
AttachInterface DetachInterface | active paused stopped | N | L | - | unchanged
UpdateMetadata DeleteMetadata | active paused suspended stopped | * | L | - | unchanged
GetConsole | any | !deleting,migrating | H h U | - | unchanged
GetConsoleOutput GetDiagnostics | any | * | H h U | - | unchanged
Lock Unlock | any | * | U | - | unchanged
ResetState(Active) | any | * | U | clear | active
ResetState(Error) | any | * | U | clear | error
InjectNetworkInfo | any | * | L U | - | unchanged
UpdateTags | active paused suspended stopped | * | U | - | unchanged
";

struct Row {
    vm: String,
    task: String,
    flags: BTreeSet<String>,
    first: String,
    ends: String,
}

fn label(action: Action) -> String {
    match action {
        Action::ResetState { to } => format!("ResetState({to:?})"),
        other => format!("{other:?}"),
    }
}

fn row(action: Action) -> Row {
    let wanted = label(action);
    let rows: Vec<_> = TABLE
        .lines()
        .filter(|line| line.split('|').next().unwrap().split_whitespace().any(|name| name == wanted))
        .collect();
    assert_eq!(rows.len(), 1, "{wanted} has {} rows", rows.len());
    let cells: Vec<_> = rows[0].split('|').map(str::trim).collect();
    Row {
        vm: cells[1].to_owned(),
        task: cells[2].to_owned(),
        flags: cells[3].split_whitespace().map(str::to_owned).collect(),
        first: cells[4].to_owned(),
        ends: cells[5].to_owned(),
    }
}

impl Row {
    fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    fn vm_allowed(&self, s: &Situation) -> bool {
        let named = self.vm == "any" || self.vm.split_whitespace().any(|vm| vm == s.vm_state.as_str());
        named && !(self.has("S20") && s.vm_state.as_str().starts_with("shelved") && s.microversion < 20)
    }

    fn task_allowed(&self, task: Option<TaskState>) -> bool {
        let name = task.map_or("N", TaskState::as_str);
        let listed = |list: &str| list.split(',').any(|word| word == name);
        if self.task == "*" {
            return true;
        }
        if let Some(list) = self.task.strip_prefix('=') {
            return listed(list);
        }
        if let Some(list) = self.task.strip_prefix('!') {
            return !listed(list);
        }
        listed(&self.task)
    }

    fn host_refusal(&self, s: &Situation) -> Option<Refusal> {
        let on_none_by_nature = s.vm_state == VmState::ShelvedOffloaded;
        let needs_host = self.has("H") || self.has("H+") || self.has("H-") || (self.has("HO") && !on_none_by_nature);
        let needs_up = self.has("H+") || (self.has("HO") && !on_none_by_nature);
        if needs_host && !s.has_host {
            return Some(Refusal::NoHost);
        }
        if needs_up && !s.host_up {
            return Some(Refusal::HostDown);
        }
        (self.has("H-") && s.host_up).then_some(Refusal::HostUp)
    }

    fn expect(&self, action: Action, s: &Situation) -> Result<(), Refusal> {
        let invalid = |attribute, value| Err(Refusal::InvalidState { action, attribute, value });
        if s.vm_state.as_str() == "deleted" {
            return Err(Refusal::Gone);
        }
        if self.has("L") && s.locked.is_some() && !s.caller_is_admin {
            return Err(Refusal::Locked);
        }
        if action == Action::Unlock && s.locked == Some(LockedBy::Admin) && !s.caller_is_admin {
            return Err(Refusal::UnlockNeedsOverride);
        }
        let task = s.task_state.map(TaskState::as_str);
        if self.has("D") && (task == Some("deleting") || task == Some(self.first.as_str())) {
            return Err(Refusal::AlreadyDeleting);
        }
        if let (true, Some(refusal)) = (self.has("h"), self.host_refusal(s)) {
            return Err(refusal);
        }
        if !self.vm_allowed(s) {
            return invalid(Attribute::VmState, Some(s.vm_state.as_str()));
        }
        if !self.task_allowed(s.task_state) {
            return invalid(Attribute::TaskState, task);
        }
        if !self.has("U") && !s.launched {
            return invalid(Attribute::LaunchedAt, None);
        }
        if let Some(refusal) = self.host_refusal(s) {
            return Err(refusal);
        }
        if s.volume_backed && (self.has("V") || (self.has("V87") && s.microversion < 87)) {
            return Err(Refusal::VolumeBacked { action });
        }
        Ok(())
    }
}

fn tasks() -> impl Iterator<Item = Option<TaskState>> {
    std::iter::once(None).chain(TaskState::ALL.iter().copied().map(Some))
}

fn pairs() -> impl Iterator<Item = (VmState, Option<TaskState>)> {
    VmState::ALL.iter().flat_map(|&vm| tasks().map(move |task| (vm, task)))
}

/// Every combination of what is beside the two states; several microversions where they matter.
fn circumstances(
    vm_state: VmState,
    task_state: Option<TaskState>,
    microversions: &'static [u16],
) -> impl Iterator<Item = Situation> {
    let combinations = microversions.iter().flat_map(|minor| (0u16..96).map(move |bits| (*minor, bits)));
    combinations.map(move |(microversion, bits)| {
        let on = |bit: u16| (bits % 32) >> bit & 1 == 1;
        Situation {
            vm_state,
            task_state,
            power_state: PowerState::Running,
            locked: [None, Some(LockedBy::Owner), Some(LockedBy::Admin)][usize::from(bits / 32)],
            launched: on(0),
            has_host: on(1),
            host_up: on(2),
            caller_is_admin: on(3),
            microversion,
            volume_backed: on(4),
            swaps_volume: false,
        }
    })
}

#[test]
fn every_action_in_every_situation_is_decided_as_the_table_says() {
    let (mut walked, mut allowed) = (0, 0);
    for &action in Action::ALL {
        let row = row(action);
        let versioned = row.has("S20") || row.has("V87");
        let microversions: &[u16] = if versioned { &[1, 19, 20, 86, 87, 104] } else { &[104] };
        for (vm, task) in pairs() {
            for s in circumstances(vm, task, microversions) {
                walked += 1;
                let decided = decide(action, &s);
                assert_eq!(decided.map(|_| ()), row.expect(action, &s), "{action:?} in {s:?}");
                let Ok(transition) = decided else { continue };
                allowed += 1;
                let first = match row.first.as_str() {
                    "-" => task,
                    "clear" => None,
                    "soft-deleting" if !s.launched => Some(TaskState::Deleting),
                    "shelving" if s.volume_backed => Some(TaskState::ShelvingOffloading),
                    word => Some(word.parse().unwrap()),
                };
                let after = transition.apply(&s.states());
                assert_eq!(after.task_state, first, "{action:?} in {s:?}");
                assert!(transition.expected.accepts(task), "{action:?} would lose its own race");
                assert!(is_legal_edge(&s.states(), &after), "{action:?}: {:?} -> {after:?}", s.states());
            }
        }
    }
    let versioned = 3 * 5;
    assert_eq!(walked, (Action::ALL.len() + versioned) * 12 * (TaskState::ALL.len() + 1) * 96);
    assert!(allowed > 10_000, "{allowed}");
}

#[test]
fn a_finished_operation_ends_where_the_table_says() {
    for &action in Action::ALL {
        let row = row(action);
        for &vm in VmState::ALL.iter().filter(|vm| row.vm == "any" || row.vm.split(' ').any(|word| word == vm.as_str()))
        {
            let from = States::idle(vm);
            let expected = match row.ends.as_str() {
                "unchanged" => vm,
                "previous" if vm == VmState::Error => VmState::Active,
                "previous" => vm,
                word => word.parse().unwrap(),
            };
            assert_eq!(succeeded(action, &from, &History::default()).vm_state, expected, "{action:?} from {vm}");
        }
    }
}

#[test]
fn the_end_depends_on_where_it_began() {
    let was_off = History { old_vm_state: Some(VmState::Stopped), ..History::default() };
    let resized = States::idle(VmState::Resized);
    for action in [Action::ConfirmResize, Action::RevertResize] {
        assert_eq!(succeeded(action, &resized, &was_off).vm_state, VmState::Stopped);
    }
    let volume = History { volume_backed: true, ..History::default() };
    let shelved = succeeded(Action::Shelve, &States::idle(VmState::Active), &volume);
    assert_eq!(shelved, States::idle(VmState::ShelvedOffloaded));
    let stays_off = History { evacuated_stays_off: true, ..History::default() };
    assert_eq!(succeeded(Action::Evacuate, &States::idle(VmState::Error), &stays_off), States::idle(VmState::Stopped));
    let stopped = States { power_state: PowerState::Shutdown, ..States::idle(VmState::Stopped) };
    assert_eq!(succeeded(Action::RebootHard, &stopped, &History::default()), States::idle(VmState::Active));
    let busy = States::idle(VmState::Active).with_task(Some(TaskState::Pausing));
    assert_eq!(succeeded(Action::AttachVolume, &busy, &History::default()), busy, "runs beside another's task");
}

#[test]
fn a_failed_operation_leaves_no_task_and_no_half_truth() {
    use FailurePhase::{AfterDiskMove, BeforeDiskMove, BeforeHost, Rescheduled};
    let running = |task| States::idle(VmState::Active).with_task(Some(task));
    let building = States::created().with_task(Some(TaskState::Spawning));
    assert_eq!(failed(Action::Create, Rescheduled, &building), States::created());
    assert_eq!(failed(Action::Create, BeforeDiskMove, &building).status(), ServerStatus::Error);
    let resizing = running(TaskState::ResizePrep);
    assert_eq!(failed(Action::Resize, BeforeDiskMove, &resizing), States::idle(VmState::Active));
    assert_eq!(failed(Action::Resize, AfterDiskMove, &resizing).vm_state, VmState::Error);
    assert_eq!(
        failed(Action::LiveMigrate, AfterDiskMove, &running(TaskState::Migrating)),
        States::idle(VmState::Active)
    );
    assert_eq!(failed(Action::Delete, BeforeHost, &running(TaskState::Deleting)).vm_state, VmState::Error);
    for &action in Action::ALL {
        let row = row(action);
        let Ok(first) = row.first.parse::<TaskState>() else { continue };
        for &vm in VmState::ALL.iter().filter(|vm| row.vm == "any" || row.vm.split(' ').any(|word| word == vm.as_str()))
        {
            let from = States::idle(vm).with_task(Some(first));
            for phase in [BeforeHost, BeforeDiskMove, AfterDiskMove] {
                let after = failed(action, phase, &from);
                assert_eq!(after.task_state, None, "{action:?} {phase:?}");
                assert!(after.vm_state == vm || after.vm_state == VmState::Error, "{action:?} {phase:?}");
                assert!(vm == VmState::Deleted || is_legal_edge(&from, &after), "{action:?} {phase:?}");
            }
        }
    }
}

/// `vm_state | default | tasks→STATUS …`, written down a second time.
const STATUS: &str = "
active | ACTIVE | rebooting,reboot_pending,reboot_started=REBOOT rebooting_hard,reboot_pending_hard,reboot_started_hard=HARD_REBOOT updating_password=PASSWORD rebuilding,rebuild_block_device_mapping,rebuild_spawning=REBUILD migrating=MIGRATING resize_prep,resize_migrating,resize_migrated,resize_finish=RESIZE
building | BUILD |
stopped | SHUTOFF | resize_prep,resize_migrating,resize_migrated,resize_finish=RESIZE rebuilding,rebuild_block_device_mapping,rebuild_spawning=REBUILD
resized | VERIFY_RESIZE | resize_reverting=REVERT_RESIZE
paused | PAUSED | migrating=MIGRATING
suspended | SUSPENDED |
rescued | RESCUE |
error | ERROR | rebuilding,rebuild_block_device_mapping,rebuild_spawning=REBUILD
deleted | DELETED |
soft-delete | SOFT_DELETED |
shelved | SHELVED |
shelved_offloaded | SHELVED_OFFLOADED |
";

fn status_of(vm: VmState, task: Option<TaskState>) -> String {
    let line = STATUS.lines().find(|line| line.split('|').next().unwrap().trim() == vm.as_str()).unwrap();
    let cells: Vec<_> = line.split('|').map(str::trim).collect();
    let shown = cells[2].split_whitespace().find_map(|item| {
        let (tasks, status) = item.split_once('=').unwrap();
        tasks.split(',').any(|name| Some(name) == task.map(TaskState::as_str)).then_some(status)
    });
    shown.unwrap_or(cells[1]).to_owned()
}

#[test]
fn status_covers_every_pair_and_its_inverse_agrees() {
    for (vm, task) in pairs() {
        let shown = status(vm, task);
        assert_eq!(shown.as_str(), status_of(vm, task), "{vm} {task:?}");
        for &wanted in ServerStatus::ALL {
            let listed = matching(wanted).iter().any(|(v, filter)| *v == vm && filter.accepts(task));
            assert_eq!(listed, wanted == shown, "?status={wanted} and {vm} {task:?}");
        }
    }
    assert!(matching(ServerStatus::Unknown).is_empty());
    assert_eq!(matching(ServerStatus::Paused), [(VmState::Paused, TaskFilter::Except(vec![TaskState::Migrating]))]);
    assert_eq!(ServerStatus::parse_filter("shutoff"), Some(ServerStatus::Shutoff));
    assert_eq!(ServerStatus::parse_filter("nonsense"), None);
}

#[test]
fn fault_and_progress_show_where_clients_expect_them() {
    let names = |shown: fn(ServerStatus) -> bool| -> Vec<_> {
        ServerStatus::ALL.iter().filter(|s| shown(**s)).map(|s| s.as_str()).collect()
    };
    assert_eq!(names(shows_fault), ["DELETED", "ERROR"]);
    assert_eq!(names(shows_progress), ["ACTIVE", "BUILD", "MIGRATING", "REBUILD", "RESIZE", "VERIFY_RESIZE"]);
}

#[test]
fn words_round_trip_in_text_and_json() {
    for vm in VmState::ALL {
        assert_eq!(vm.as_str().parse(), Ok(*vm));
        assert_eq!(serde_json::to_value(vm).unwrap(), vm.as_str());
    }
    for task in TaskState::ALL {
        assert_eq!(task.as_str().parse(), Ok(*task));
        assert_eq!(serde_json::to_value(task).unwrap(), task.as_str());
    }
    assert_eq!("PAUSED".parse::<VmState>().unwrap_err().to_string(), "'PAUSED' is not a vm_state");
    let integers: Vec<_> = PowerState::ALL.iter().map(|p| serde_json::to_value(p).unwrap()).collect();
    assert_eq!(integers, [0, 1, 3, 4, 6, 7]);
    assert_eq!(serde_json::from_str::<PowerState>("4").unwrap(), PowerState::Shutdown);
    assert!(serde_json::from_str::<PowerState>("2").is_err());
    assert_eq!(VmState::ALL.len(), 12);
}

#[test]
fn refusals_read_as_novas() {
    let s = Situation::active();
    let text = |action, s: &Situation| decide(action, s).unwrap_err().message("42");
    assert_eq!(text(Action::Start, &s), "Cannot 'start' instance 42 while it is in vm_state active");
    let busy = Situation { task_state: Some(TaskState::PoweringOff), ..s };
    assert_eq!(text(Action::Pause, &busy), "Cannot 'pause' instance 42 while it is in task_state powering-off");
    let fresh = Situation { launched: false, ..s };
    assert_eq!(text(Action::Stop, &fresh), "Instance 42 is in an invalid state for 'stop'");
    assert_eq!(text(Action::AbortLiveMigration, &s), "Instance 42 is in an invalid state for 'abort live migration'");
    let locked = Situation { locked: Some(LockedBy::Owner), ..s };
    assert_eq!(text(Action::Stop, &locked), "Instance 42 is locked");
    let nowhere = Situation { has_host: false, ..s };
    assert_eq!(text(Action::GetConsoleOutput, &nowhere), "Instance 42 is not ready");
    let volume = Situation { volume_backed: true, ..s };
    assert_eq!(text(Action::CreateBackup, &volume), "Backup is not supported for volume-backed instances.");
    assert_eq!(text(Action::Rescue, &volume), "Instance 42 cannot be rescued: Cannot rescue a volume-backed instance");
    let swaps = Situation { swaps_volume: true, ..s };
    assert_eq!(text(Action::Rebuild, &swaps), "Cannot 'rebuild' instance 42 while a volume of it is being swapped");
    for action in [Action::Delete, Action::Stop, Action::RebootHard, Action::AttachVolume, Action::SwapVolume] {
        assert!(decide(action, &swaps).is_ok(), "{action:?} knows nothing of volumes, or ends the swap");
    }
    let error = Situation { vm_state: VmState::Error, ..s };
    let tags = decide(Action::UpdateTags, &error).unwrap_err();
    assert_eq!(tags.message_as("delete tag", "42"), "Cannot 'delete tag' instance 42 while it is in vm_state error");
}

#[test]
fn a_start_repairs_what_was_cut_off() {
    let repair = |vm, task: &str, power| repair_at_start(&States::idle(vm).with_task(task.parse().ok()), power);
    let (up, off, paused) = (Some(PowerState::Running), Some(PowerState::Shutdown), Some(PowerState::Paused));
    for (vm, task, power, expected) in [
        (VmState::Building, "", None, Repair::Error),
        (VmState::Building, "spawning", up, Repair::Error),
        (VmState::Building, "deleting", up, Repair::ResumeDelete),
        (VmState::ShelvedOffloaded, "spawning", None, Repair::Error),
        (VmState::Active, "rebuild_spawning", up, Repair::Error),
        (VmState::Stopped, "rebuilding", off, Repair::Error),
        (VmState::Active, "image_uploading", up, Repair::ClearTask),
        (VmState::Active, "image_backup", up, Repair::ClearTask),
        (VmState::Active, "resize_prep", up, Repair::ClearTask),
        (VmState::Active, "deleting", up, Repair::ResumeDelete),
        (VmState::Error, "deleting", None, Repair::ResumeDelete),
        (VmState::Error, "resize_migrating", None, Repair::RevertResize),
        (VmState::Error, "rebuilding", None, Repair::ClearTask),
        (VmState::Error, "", None, Repair::None),
        (VmState::SoftDelete, "restoring", off, Repair::ClearTask),
        (VmState::SoftDelete, "deleting", off, Repair::ResumeDelete),
        (VmState::Deleted, "", up, Repair::FinishDelete),
        (VmState::Active, "rebooting", up, Repair::SetActive),
        (VmState::Active, "rebooting", off, Repair::ReissueReboot { hard: true }),
        (VmState::Active, "reboot_pending", up, Repair::ReissueReboot { hard: false }),
        (VmState::Active, "reboot_pending", off, Repair::ReissueReboot { hard: true }),
        (VmState::Active, "reboot_pending_hard", up, Repair::ReissueReboot { hard: true }),
        (VmState::Active, "reboot_started_hard", None, Repair::ReissueReboot { hard: true }),
        (VmState::Active, "powering-off", up, Repair::RetryPowerOff),
        (VmState::Stopped, "powering-on", off, Repair::RetryPowerOn),
        (VmState::Active, "pausing", up, Repair::SetActive),
        (VmState::Paused, "unpausing", up, Repair::SetActive),
        (VmState::Paused, "unpausing", paused, Repair::RetryUnpause),
        (VmState::Active, "pausing", paused, Repair::None),
        (VmState::Active, "resize_migrating", off, Repair::RevertResize),
        (VmState::Active, "migrating", up, Repair::AbortLiveMigration),
        (VmState::Active, "shelving", up, Repair::None),
        (VmState::Active, "", off, Repair::None),
    ] {
        assert_eq!(repair(vm, task, power), expected, "{vm} '{task}' {power:?}");
    }
}

/// `vm_state: readings that stop it : readings that force a stop : readings that are logged`; everything else is left alone.
const POWER: &str = "
active:4,6,7::3,0
stopped::1,3,7:
paused::4,6:
soft-delete:::1,3,6,7
deleted:::1,3,6,7
";

#[test]
fn power_readings_are_recorded_and_acted_on() {
    for &vm in VmState::ALL {
        let line = POWER.lines().find(|line| line.split(':').next() == Some(vm.as_str())).unwrap_or(":::");
        let cells: Vec<Vec<_>> = line.split(':').map(|cell| cell.split(',').collect()).collect();
        for &reading in PowerState::ALL {
            let number = reading.as_i64().to_string();
            let states = States { power_state: PowerState::NoState, ..States::idle(vm) };
            let sync = sync_power_state(&states, reading);
            assert_eq!(sync.record, (reading != PowerState::NoState).then_some(reading));
            let expected =
                match (cells[1].contains(&&*number), cells[2].contains(&&*number), cells[3].contains(&&*number)) {
                    (true, ..) => "stop",
                    (_, true, _) => "force",
                    (.., true) => "log",
                    _ => "none",
                };
            let got = match sync.action {
                PowerAction::None => "none",
                PowerAction::Stop => "stop",
                PowerAction::ForceStop => "force",
                PowerAction::Log(_) => "log",
            };
            assert_eq!(got, expected, "{vm} reads {reading}");
            let busy = states.with_task(Some(TaskState::Migrating));
            let skipped = PowerSync { record: None, action: PowerAction::None };
            assert_eq!(sync_power_state(&busy, reading), skipped);
        }
    }
}

fn at(vm: VmState, task: &str) -> States {
    States::idle(vm).with_task(if task.is_empty() { None } else { Some(task.parse().unwrap()) })
}

#[test]
fn whole_operations_walk_on_legal_edges() {
    for path in [
        "building:scheduling building: building:networking building:block_device_mapping building:spawning active:",
        "building:scheduling building:spawning building:scheduling building:spawning active:",
        "building:scheduling error: error:deleting deleted:",
        "active:resize_prep active:resize_migrating active:resize_migrated active:resize_finish resized: active:",
        "stopped:resize_prep stopped:resize_finish resized: resized:resize_reverting stopped:",
        "active:rebooting active:reboot_pending active:reboot_started active:",
        "active:reboot_started active:reboot_pending_hard active:reboot_started_hard active:",
        "paused: paused:rebooting_hard active:",
        "active:shelving active:shelving_image_uploading shelved:shelving_offloading shelved_offloaded: shelved_offloaded:unshelving shelved_offloaded:spawning active:",
        "active: active:soft-deleting soft-delete: soft-delete:restoring active:",
        "soft-delete: soft-delete:deleting deleted:",
        "stopped: stopped:powering-off stopped: stopped:powering-on active:",
        "paused: paused:powering-off stopped:",
        "active:image_snapshot_pending active:image_uploading active: active:migrating active:",
    ] {
        let states: Vec<_> = path
            .split(' ')
            .map(|step| step.split_once(':').unwrap())
            .map(|(vm, task)| at(vm.parse().unwrap(), task))
            .collect();
        for pair in states.windows(2) {
            assert!(is_legal_edge(&pair[0], &pair[1]), "{path}: {:?} -> {:?}", pair[0], pair[1]);
            assert!(!matches!(edge_of(&pair[0], &pair[1]), Some(Edge::Reset)), "{path}: {:?}", pair[0]);
            assert!(pair.iter().all(States::is_possible), "{path}");
        }
    }
}

#[test]
fn edges_that_no_rule_gives_are_refused() {
    for (from, to) in [
        (at(VmState::Deleted, ""), at(VmState::Active, "")),
        (at(VmState::Deleted, ""), at(VmState::Deleted, "deleting")),
        (at(VmState::Active, ""), at(VmState::Stopped, "")),
        (at(VmState::Active, ""), at(VmState::Deleted, "")),
        (at(VmState::Active, ""), at(VmState::Building, "scheduling")),
        (at(VmState::Active, ""), at(VmState::Active, "powering-on")),
        (at(VmState::Active, ""), at(VmState::Active, "resize_finish")),
        (at(VmState::Active, "powering-off"), at(VmState::Active, "pausing")),
        (at(VmState::Active, "powering-off"), at(VmState::Paused, "")),
        (at(VmState::Active, "resize_finish"), at(VmState::Active, "resize_prep")),
        (at(VmState::Active, "deleting"), at(VmState::Active, "rebooting")),
        (at(VmState::Building, "spawning"), at(VmState::Stopped, "")),
        (at(VmState::Stopped, "powering-on"), at(VmState::Paused, "")),
    ] {
        assert_eq!(edge_of(&from, &to), None, "{from:?} -> {to:?}");
    }
    let by_hand = (at(VmState::Stopped, "powering-on").with_task(None), at(VmState::Active, ""));
    assert_eq!(edge_of(&by_hand.0, &by_hand.1), Some(Edge::Reset));
    assert!(!at(VmState::Stopped, "spawning").is_possible());
    let legal = pairs()
        .flat_map(|a| pairs().map(move |b| (a, b)))
        .filter(|((v, t), (w, u))| is_legal_edge(&at(*v, "").with_task(*t), &at(*w, "").with_task(*u)))
        .count();
    let all = pairs().count().pow(2);
    assert!(legal * 20 < all, "{legal} of {all} changes are legal: the audit says nothing");
}

#[test]
fn action_words_are_novas() {
    assert_eq!(Action::RebootHard.name(), "reboot");
    assert_eq!(Action::LiveMigrate.action_record(), Some("live-migration"));
    assert_eq!(Action::ForceDelete.action_record(), Some("delete"));
    assert_eq!(Action::GetConsole.action_record(), None);
    for &action in Action::ALL {
        let json = serde_json::to_string(&action).unwrap();
        assert_eq!(serde_json::from_str::<Action>(&json).unwrap(), action);
    }
}
