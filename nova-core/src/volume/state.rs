//! In which state a volume may do what, and where it ends (cinder/objects/fields.py, cinder/volume/api.py,
//! cinder/volume/manager.py), as pure functions.
//!
//! Where Cinder would leave a volume that lost nothing in a state of error, it returns to where it was: a volume that could
//! not be grown is as large as before.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The state of that word.
            pub fn parse(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
    )+ };
}

words! {
    /// Where a volume is in its life.
    VolumeStatus {
        /// It is being made.
        Creating = "creating",
        /// It is being made of an image.
        Downloading = "downloading",
        /// Nobody has it.
        Available = "available",
        /// It is promised to a server.
        Reserved = "reserved",
        /// It is being connected.
        Attaching = "attaching",
        /// A server has it.
        InUse = "in-use",
        /// It is being taken away from a server.
        Detaching = "detaching",
        /// It is growing.
        Extending = "extending",
        /// It is becoming an image.
        Uploading = "uploading",
        /// Operators keep it.
        Maintenance = "maintenance",
        /// It is offered to another project.
        AwaitingTransfer = "awaiting-transfer",
        /// It is being removed.
        Deleting = "deleting",
        /// It could not be made, or an operator says so.
        Error = "error",
        /// It could not be removed.
        ErrorDeleting = "error_deleting",
        /// Nobody knows how large it is.
        ErrorExtending = "error_extending",
    }
    /// Where a snapshot is in its life.
    SnapshotStatus {
        /// It is being taken.
        Creating = "creating",
        /// It is there.
        Available = "available",
        /// It is being removed.
        Deleting = "deleting",
        /// It could not be taken.
        Error = "error",
        /// It could not be removed.
        ErrorDeleting = "error_deleting",
    }
}

/// In whose hands a volume is: its attachments, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holds {
    /// Promised.
    pub reserved: usize,
    /// Being connected.
    pub attaching: usize,
    /// Connected.
    pub attached: usize,
    /// Being disconnected.
    pub detaching: usize,
}

impl Holds {
    /// All of them.
    pub fn total(self) -> usize {
        self.reserved + self.attaching + self.attached + self.detaching
    }
}

/// What a volume is that nothing is being done to.
pub fn rest(holds: Holds) -> VolumeStatus {
    match holds {
        Holds { attached: 1.., .. } => VolumeStatus::InUse,
        Holds { attaching: 1.., .. } => VolumeStatus::Attaching,
        Holds { reserved: 1.., .. } => VolumeStatus::Reserved,
        Holds { detaching: 1.., .. } => VolumeStatus::Detaching,
        Holds { .. } => VolumeStatus::Available,
    }
}

/// What happens to a volume. [`Holds`] are those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeEvent {
    /// It was made.
    Built,
    /// It could not be made.
    BuildFailed,
    /// It is to be removed; `force` whatever state it is in, but not out of somebody's hands.
    Delete {
        /// Asked by an operator.
        force: bool,
    },
    /// It could not be removed.
    DeleteFailed,
    /// A server is to have it. `shared`: it may be in several hands, or the same server has it on another host.
    Reserve {
        /// Others may have it meanwhile.
        shared: bool,
    },
    /// An attachment of it got further: connected, or in use.
    AttachmentMoved,
    /// Its server is to give it back.
    BeginDetaching,
    /// Its server keeps it.
    RollDetaching,
    /// An attachment is gone, or on its way.
    AttachmentGone,
    /// It is to grow. `online`: its pool grows disks that are in use.
    Extend {
        /// While in use, too.
        online: bool,
    },
    /// It has grown, or is as it was.
    ExtendEnded,
    /// It is to become an image. `force`: also while in use.
    Upload {
        /// While in use, too.
        force: bool,
    },
    /// It became one, or did not.
    UploadEnded,
    /// It is offered to another project.
    OfferTransfer,
    /// It was taken, or is not offered any more.
    TransferEnded,
    /// A snapshot of it is to be taken. `force`: also while in use.
    TakeSnapshot {
        /// While in use, too.
        force: bool,
    },
    /// It is to be of another type, or otherwise what it is by its attributes.
    Retype,
    /// It is copied to a new one.
    CopyFrom,
    /// An image's data is to take the place of what is on it. `reserved`: also while it is promised to a server.
    Reimage {
        /// While promised, too.
        reserved: bool,
    },
    /// It has, or has not.
    ReimageEnded,
    /// An operator says what it is.
    Reset(VolumeStatus),
}

/// It cannot be, in that state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRefusal {
    /// States in which it could be.
    pub needs: &'static [VolumeStatus],
    /// The one that it is in.
    pub found: VolumeStatus,
    /// What is in the way besides the state: it is in somebody's hands.
    pub held: bool,
}

/// The state that follows.
///
/// # Errors
/// [`VolumeRefusal`] with the states in which it could be. A volume that is gone on to something else meanwhile refuses
/// what is told late.
pub fn next(now: VolumeStatus, holds: Holds, event: VolumeEvent) -> Result<VolumeStatus, VolumeRefusal> {
    use VolumeEvent as E;
    use VolumeStatus as S;
    let among = |needs: &'static [S], then: S| {
        if needs.contains(&now) { Ok(then) } else { Err(VolumeRefusal { needs, found: now, held: false }) }
    };
    match event {
        E::Built => among(&[S::Creating, S::Downloading], rest(holds)),
        E::BuildFailed => among(&[S::Creating, S::Downloading], S::Error),
        E::Delete { force } => delete(now, holds, force),
        E::DeleteFailed => among(&[S::Deleting], S::ErrorDeleting),
        E::Reserve { shared: false } => among(&[S::Available], S::Reserved),
        E::Reserve { shared: true } => {
            among(&[S::Available, S::Reserved, S::Attaching, S::InUse, S::Detaching], rest(holds))
        }
        E::AttachmentMoved => among(&[S::Reserved, S::Attaching, S::InUse, S::Detaching, S::Available], rest(holds)),
        E::BeginDetaching => among(&[S::InUse], S::Detaching),
        E::RollDetaching => among(&[S::Detaching], rest(holds)),
        // Whatever is being done to the volume besides: it is done, and looks at the holds then.
        E::AttachmentGone => Ok(match now {
            S::Reserved | S::Attaching | S::InUse | S::Detaching | S::Available => rest(holds),
            other => other,
        }),
        E::Extend { online: false } => among(&[S::Available], S::Extending),
        E::Extend { online: true } => among(&[S::Available, S::InUse], S::Extending),
        E::ExtendEnded => among(&[S::Extending], rest(holds)),
        E::Upload { force: false } => among(&[S::Available], S::Uploading),
        E::Upload { force: true } => among(&[S::Available, S::InUse], S::Uploading),
        E::UploadEnded => among(&[S::Uploading], rest(holds)),
        E::OfferTransfer => among(&[S::Available], S::AwaitingTransfer),
        E::TransferEnded => among(&[S::AwaitingTransfer], rest(holds)),
        E::TakeSnapshot { force: false } => among(&[S::Available], now),
        E::TakeSnapshot { force: true } => among(&[S::Available, S::InUse], now),
        E::Retype => among(&[S::Available, S::InUse], now),
        E::CopyFrom => among(&[S::Available, S::InUse], now),
        E::Reimage { reserved: false } => among(&[S::Available], S::Downloading),
        E::Reimage { reserved: true } => among(&[S::Available, S::Reserved], S::Downloading),
        E::ReimageEnded => among(&[S::Downloading], rest(holds)),
        E::Reset(to) => Ok(to),
    }
}

fn delete(now: VolumeStatus, holds: Holds, force: bool) -> Result<VolumeStatus, VolumeRefusal> {
    use VolumeStatus as S;
    const NEEDS: &[VolumeStatus] = &[S::Available, S::Error, S::ErrorDeleting, S::ErrorExtending];
    if holds.total() > 0 {
        return Err(VolumeRefusal { needs: NEEDS, found: now, held: true });
    }
    // What is being removed is being removed; what somebody was offered is first taken back.
    let forced = force && !matches!(now, S::Deleting | S::AwaitingTransfer);
    if forced || NEEDS.contains(&now) {
        return Ok(S::Deleting);
    }
    Err(VolumeRefusal { needs: NEEDS, found: now, held: false })
}

/// What happens to a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotEvent {
    /// It was taken.
    Taken,
    /// It could not be taken.
    TakeFailed,
    /// It is to be removed; `force` whatever state it is in.
    Delete {
        /// Asked by an operator.
        force: bool,
    },
    /// It could not be removed.
    DeleteFailed,
    /// A volume is made of it.
    CopyFrom,
    /// An operator says what it is.
    Reset(SnapshotStatus),
}

/// The state of a snapshot that follows.
///
/// # Errors
/// States in which it could be.
pub fn next_snapshot(now: SnapshotStatus, event: SnapshotEvent) -> Result<SnapshotStatus, &'static [SnapshotStatus]> {
    use SnapshotEvent as E;
    use SnapshotStatus as S;
    let among = |needs: &'static [S], then: S| if needs.contains(&now) { Ok(then) } else { Err(needs) };
    match event {
        E::Taken => among(&[S::Creating], S::Available),
        E::TakeFailed => among(&[S::Creating], S::Error),
        E::Delete { force: false } => among(&[S::Available, S::Error, S::ErrorDeleting], S::Deleting),
        E::Delete { force: true } => among(&[S::Creating, S::Available, S::Error, S::ErrorDeleting], S::Deleting),
        E::DeleteFailed => among(&[S::Deleting], S::ErrorDeleting),
        E::CopyFrom => among(&[S::Available], S::Available),
        E::Reset(to) => Ok(to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Holds = Holds { reserved: 0, attaching: 0, attached: 0, detaching: 0 };
    const HELD: Holds = Holds { attached: 1, ..FREE };

    /// What follows from every state, in the order of [`VolumeStatus::ALL`]; `-` refuses. Without and with an attachment.
    #[test]
    fn the_whole_table() {
        use VolumeEvent as E;
        let table: [(E, &str, &str); 23] = [
            (E::Built, "av av - - - - - - - - - - - - -", "iu iu - - - - - - - - - - - - -"),
            (E::BuildFailed, "er er - - - - - - - - - - - - -", "er er - - - - - - - - - - - - -"),
            (E::Delete { force: false }, "- - de - - - - - - - - - de de de", "- - - - - - - - - - - - - - -"),
            (E::Delete { force: true }, "de de de de de de de de de de - - de de de", "- - - - - - - - - - - - - - -"),
            (E::DeleteFailed, "- - - - - - - - - - - ed - - -", "- - - - - - - - - - - ed - - -"),
            (E::Reserve { shared: false }, "- - rs - - - - - - - - - - - -", "- - rs - - - - - - - - - - - -"),
            (E::Reserve { shared: true }, "- - av av av av av - - - - - - - -", "- - iu iu iu iu iu - - - - - - - -"),
            (E::AttachmentMoved, "- - av av av av av - - - - - - - -", "- - iu iu iu iu iu - - - - - - - -"),
            (E::BeginDetaching, "- - - - - dt - - - - - - - - -", "- - - - - dt - - - - - - - - -"),
            (E::RollDetaching, "- - - - - - av - - - - - - - -", "- - - - - - iu - - - - - - - -"),
            (
                E::AttachmentGone,
                "cr dl av av av av av ex up ma aw de er ed ee",
                "cr dl iu iu iu iu iu ex up ma aw de er ed ee",
            ),
            (E::Extend { online: false }, "- - ex - - - - - - - - - - - -", "- - ex - - - - - - - - - - - -"),
            (E::Extend { online: true }, "- - ex - - ex - - - - - - - - -", "- - ex - - ex - - - - - - - - -"),
            (E::ExtendEnded, "- - - - - - - av - - - - - - -", "- - - - - - - iu - - - - - - -"),
            (E::Upload { force: false }, "- - up - - - - - - - - - - - -", "- - up - - - - - - - - - - - -"),
            (E::Upload { force: true }, "- - up - - up - - - - - - - - -", "- - up - - up - - - - - - - - -"),
            (E::UploadEnded, "- - - - - - - - av - - - - - -", "- - - - - - - - iu - - - - - -"),
            (E::OfferTransfer, "- - aw - - - - - - - - - - - -", "- - aw - - - - - - - - - - - -"),
            (E::TransferEnded, "- - - - - - - - - - av - - - -", "- - - - - - - - - - iu - - - -"),
            (E::Reimage { reserved: false }, "- - dl - - - - - - - - - - - -", "- - dl - - - - - - - - - - - -"),
            (E::Reimage { reserved: true }, "- - dl dl - - - - - - - - - - -", "- - dl dl - - - - - - - - - - -"),
            (E::ReimageEnded, "- av - - - - - - - - - - - - -", "- iu - - - - - - - - - - - - -"),
            (E::TakeSnapshot { force: true }, "- - av - - iu - - - - - - - - -", "- - av - - iu - - - - - - - - -"),
        ];
        for (event, free, held) in table {
            assert_eq!(row(FREE, event), free, "{event:?}");
            assert_eq!(row(HELD, event), held, "{event:?}, held");
        }
        for event in [E::Retype, E::CopyFrom] {
            assert_eq!(row(FREE, event), row(FREE, E::TakeSnapshot { force: true }), "{event:?}");
        }
        assert_eq!(row(FREE, E::TakeSnapshot { force: false }), "- - av - - - - - - - - - - - -");
        for to in VolumeStatus::ALL {
            assert!(VolumeStatus::ALL.iter().all(|now| next(*now, FREE, E::Reset(*to)) == Ok(*to)));
        }
    }

    fn row(holds: Holds, event: VolumeEvent) -> String {
        use VolumeStatus as S;
        let short = |status: S| match status {
            S::Creating => "cr",
            S::Downloading => "dl",
            S::Available => "av",
            S::Reserved => "rs",
            S::Attaching => "at",
            S::InUse => "iu",
            S::Detaching => "dt",
            S::Extending => "ex",
            S::Uploading => "up",
            S::Maintenance => "ma",
            S::AwaitingTransfer => "aw",
            S::Deleting => "de",
            S::Error => "er",
            S::ErrorDeleting => "ed",
            S::ErrorExtending => "ee",
        };
        let one = |now: &S| next(*now, holds, event).map_or("-", short);
        S::ALL.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_whole_table_of_snapshots() {
        use SnapshotEvent as E;
        use SnapshotStatus as S;
        let table: [(E, [Option<S>; 5]); 6] = [
            (E::Taken, [Some(S::Available), None, None, None, None]),
            (E::TakeFailed, [Some(S::Error), None, None, None, None]),
            (E::Delete { force: false }, [None, Some(S::Deleting), None, Some(S::Deleting), Some(S::Deleting)]),
            (
                E::Delete { force: true },
                [Some(S::Deleting), Some(S::Deleting), None, Some(S::Deleting), Some(S::Deleting)],
            ),
            (E::DeleteFailed, [None, None, Some(S::ErrorDeleting), None, None]),
            (E::CopyFrom, [None, Some(S::Available), None, None, None]),
        ];
        for (event, expected) in table {
            let found: Vec<Option<S>> = S::ALL.iter().map(|now| next_snapshot(*now, event).ok()).collect();
            assert_eq!(found, expected, "{event:?}");
        }
    }

    #[test]
    fn a_volume_at_rest_is_where_its_attachments_are() {
        let holds = |reserved, attaching, attached, detaching| Holds { reserved, attaching, attached, detaching };
        assert_eq!(rest(holds(0, 0, 0, 0)), VolumeStatus::Available);
        assert_eq!(rest(holds(0, 0, 0, 1)), VolumeStatus::Detaching);
        assert_eq!(rest(holds(1, 0, 0, 1)), VolumeStatus::Reserved);
        assert_eq!(rest(holds(1, 1, 0, 1)), VolumeStatus::Attaching);
        assert_eq!(rest(holds(1, 1, 1, 1)), VolumeStatus::InUse);
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for status in VolumeStatus::ALL {
            assert_eq!(VolumeStatus::parse(status.as_str()), Some(*status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(VolumeStatus::parse("unknown"), None);
    }
}
