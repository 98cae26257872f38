//! Images.

use async_trait::async_trait;
use nova_core::ids::ImageId;
use nova_core::image::Image;

use super::{RowStore, add, conflict, duplicate, find, list, need, remove_existing, replace};
use crate::rows::{Backend, Fail, Lock, Select, Transaction, Value};
use crate::{ImageStore, Kind, StoreError};

#[async_trait]
impl<B: Backend> ImageStore for RowStore<B> {
    async fn create_image(&self, image: Image) -> Result<Image, StoreError> {
        self.write(image, |tx, image| Box::pin(create(tx, image))).await
    }

    async fn get_image(&self, id: ImageId) -> Result<Image, StoreError> {
        let key = [Value::text(id)];
        self.read(&key, |tx, key| Box::pin(async move { Ok(need(tx, key, Lock::None).await?.record) })).await
    }

    async fn list_images(&self) -> Result<Vec<Image>, StoreError> {
        self.read(&Select::all().newest(&["created_at", "id"]), |tx, order| Box::pin(list(tx, order))).await
    }

    async fn update_image(&self, image: Image) -> Result<Image, StoreError> {
        self.write(image, |tx, image| Box::pin(update(tx, image))).await
    }

    async fn delete_image(&self, id: ImageId) -> Result<(), StoreError> {
        self.write([Value::text(id)], |tx, key| Box::pin(remove_existing::<Image>(tx, key))).await
    }
}

pub(super) async fn create(tx: &mut dyn Transaction, image: &Image) -> Result<Image, Fail> {
    if find::<Image>(tx, &[Value::text(image.id)], Lock::None).await?.is_some() {
        return Err(duplicate(Kind::Image, "id", image.id));
    }
    let new = Image { generation: 1, ..image.clone() };
    add(tx, &new).await?;
    Ok(new)
}

async fn update(tx: &mut dyn Transaction, image: &Image) -> Result<Image, Fail> {
    let key = [Value::text(image.id)];
    let old = need::<Image>(tx, &key, Lock::ForUpdate).await?;
    if old.generation != image.generation {
        return Err(conflict::<Image>(&key));
    }
    let next = Image { generation: old.generation + 1, ..image.clone() };
    if replace(tx, &next, old.generation).await? { Ok(next) } else { Err(conflict::<Image>(&key)) }
}
