//! Types of volumes.

use std::collections::BTreeMap;

use nova_core::context::RequestContext;
use nova_core::ids::VolumeTypeId;
use nova_core::volume::{DEFAULT_TYPE, VolumeProblem, VolumeType};
use nova_db::StoreError;

use super::{VolumeError, VolumeManager};

impl VolumeManager {
    /// The type of that id or name, if the caller may use it.
    ///
    /// # Errors
    /// There is none.
    pub async fn volume_type(&self, context: &RequestContext, named: &str) -> Result<VolumeType, VolumeError> {
        let types = self.parts.store.list_volume_types().await?;
        let id = named.parse::<VolumeTypeId>().ok();
        let by_id = types.iter().find(|of| Some(of.id) == id);
        let found = by_id.or_else(|| types.iter().find(|of| of.name == named));
        let found = found.filter(|of| context.is_admin() || of.is_for(&context.project_id));
        found.cloned().ok_or_else(|| VolumeProblem::no_type(named).into())
    }

    /// The type of volumes for which none is named; `__DEFAULT__` is made by its first use.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn default_type(&self) -> Result<Option<VolumeType>, VolumeError> {
        let name = &self.parts.options.default_type;
        let find = |types: Vec<VolumeType>| types.into_iter().find(|of| of.name == *name);
        if let Some(found) = find(self.parts.store.list_volume_types().await?) {
            return Ok(Some(found));
        }
        if name != DEFAULT_TYPE {
            return Ok(None);
        }
        let now = self.now();
        let new = VolumeType {
            id: VolumeTypeId::generate(&*self.parts.entropy),
            name: DEFAULT_TYPE.to_owned(),
            description: Some("Default Volume Type".to_owned()),
            is_public: true,
            extra_specs: BTreeMap::new(),
            projects: Default::default(),
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        match self.parts.store.create_volume_type(new).await {
            Ok(made) => Ok(Some(made)),
            // Somebody else was faster.
            Err(StoreError::Duplicate { .. }) => Ok(find(self.parts.store.list_volume_types().await?)),
            Err(error) => Err(error.into()),
        }
    }
}
