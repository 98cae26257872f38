//! Offers of volumes to other projects (cinder/transfer/api.py). Who knows the key has it; it is told once, and kept only as a
//! digest.

use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::ids::{VolumeId, VolumeTransferId};
use nova_core::volume::{Snapshot, Transfer, Volume, VolumeEvent, VolumeProblem};
use nova_db::{StoreError, Write};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::change::{happen, names};
use super::manager::{Intent, Look, Seen};
use super::{VolumeError, VolumeManager};

/// Bytes of a key; Cinder's are shorter (`volume_transfer_key_length`, 16 characters).
const KEY_BYTES: usize = 16;
const SALT_BYTES: usize = 8;

/// An offer, and what takes it.
#[derive(Debug, Clone)]
pub struct Offered {
    /// The offer.
    pub transfer: Transfer,
    /// The key.
    pub auth_key: String,
}

fn digest(salt: &str, key: &str) -> String {
    let digest = Sha256::new().chain_update(salt.as_bytes()).chain_update(key.as_bytes()).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn none(id: VolumeTransferId) -> VolumeProblem {
    VolumeProblem::NotFound { kind: "Transfer", id: id.to_string() }
}

impl VolumeManager {
    /// Offers a volume.
    ///
    /// # Errors
    /// Not in this state; with snapshots, if these are to stay.
    pub async fn offer(
        &self,
        context: &RequestContext,
        volume: VolumeId,
        name: &str,
        no_snapshots: bool,
    ) -> Result<Offered, VolumeError> {
        let entropy: &dyn Entropy = &*self.parts.entropy;
        let (auth_key, salt) = (entropy.hex(KEY_BYTES), entropy.hex(SALT_BYTES));
        let transfer = Transfer {
            id: VolumeTransferId::generate(entropy),
            volume_id: volume,
            project_id: context.project_id.clone(),
            name: name.to_owned(),
            no_snapshots,
            digest: digest(&salt, &auth_key),
            salt,
            created_at: self.now(),
            generation: 0,
        };
        let decide = |mut seen: Seen| {
            if no_snapshots && !seen.snapshots.is_empty() {
                return Err(VolumeProblem::HasSnapshots { volume, count: seen.snapshots.len() });
            }
            happen(&mut seen.volume, VolumeEvent::OfferTransfer)?;
            let transfer = Transfer { project_id: seen.volume.project_id.clone(), ..transfer.clone() };
            let mut intent = Intent::of(seen.volume);
            intent.commit.transfers.push(Write::Create(transfer));
            Ok(intent)
        };
        self.change(context, volume, Look::Whole, decide).await?;
        Ok(Offered { transfer, auth_key })
    }

    /// An offer of the caller's project.
    ///
    /// # Errors
    /// There is none.
    pub async fn transfer(&self, context: &RequestContext, id: VolumeTransferId) -> Result<Transfer, VolumeError> {
        match self.parts.store.get_volume_transfer(id).await {
            Ok(transfer) if transfer.project_id == context.project_id || context.is_admin() => Ok(transfer),
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(none(id).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes an offer: the volume is the caller's, with its snapshots, and counts for them.
    ///
    /// # Errors
    /// Another key, or more than the caller's project may have.
    pub async fn accept(
        &self,
        context: &RequestContext,
        id: VolumeTransferId,
        auth_key: &str,
    ) -> Result<Transfer, VolumeError> {
        let transfer = match self.parts.store.get_volume_transfer(id).await {
            Ok(transfer) => transfer,
            Err(StoreError::NotFound { .. }) => return Err(none(id).into()),
            Err(error) => return Err(error.into()),
        };
        let given = digest(&transfer.salt, auth_key);
        if !bool::from(given.as_bytes().ct_eq(transfer.digest.as_bytes())) {
            let text = format!("Attempt to transfer {} with invalid auth key.", transfer.volume_id);
            return Err(VolumeProblem::input(text).into());
        }
        let types = self.parts.store.list_volume_types().await?;
        let decide = |mut seen: Seen| {
            happen(&mut seen.volume, VolumeEvent::TransferEnded)?;
            let given = |snapshot: Snapshot| {
                let (project_id, user_id) = (context.project_id.clone(), context.user_id.clone());
                Write::Update(Snapshot { project_id, user_id, ..snapshot })
            };
            let snapshots = seen.snapshots.into_iter().map(given).collect();
            let (project_id, user_id) = (context.project_id.clone(), context.user_id.clone());
            let mut intent = Intent::of(Volume { project_id, user_id, ..seen.volume });
            intent.commit.snapshots = snapshots;
            intent.commit.transfers.push(Write::Delete(transfer.clone()));
            intent.commit.limits = Some(self.parts.options.limits.clone());
            intent.commit.type_names = names(&types);
            Ok(intent)
        };
        // The volume is the other project's until then.
        let theirs = RequestContext { roles: vec!["admin".to_owned()], ..context.clone() };
        let done = self.change(&theirs, transfer.volume_id, Look::Whole, decide).await;
        done.map_err(|error| gone(error, id))?;
        Ok(transfer)
    }

    /// Takes an offer back.
    ///
    /// # Errors
    /// There is none.
    pub async fn withdraw(&self, context: &RequestContext, id: VolumeTransferId) -> Result<(), VolumeError> {
        let transfer = self.transfer(context, id).await?;
        let decide = |mut seen: Seen| {
            happen(&mut seen.volume, VolumeEvent::TransferEnded)?;
            let mut intent = Intent::of(seen.volume);
            intent.commit.transfers.push(Write::Delete(transfer.clone()));
            Ok(intent)
        };
        let done = self.change(context, transfer.volume_id, Look::Bare, decide).await;
        done.map(drop).map_err(|error| gone(error, id))
    }
}

/// Somebody else was faster.
fn gone(error: VolumeError, id: VolumeTransferId) -> VolumeError {
    match error {
        VolumeError::Store(StoreError::NotFound { .. }) => none(id).into(),
        other => other,
    }
}
