//! The documents of an exported cache. `docs/formats/cache-export.md` describes them.

use std::collections::BTreeMap;

use firebuild_oci::document::MAX_ENTRIES;
use firebuild_oci::{Descriptor, Digest, ImageConfig, Manifest};
use serde::{Deserialize, Serialize};

use super::StepRecord;
use crate::key::CacheKey;

/// Media type of the configuration of an exported cache.
pub(super) const CONFIG: &str = "application/vnd.firebuild.cache.v1+json";
/// The member of an image configuration that holds an inline cache.
pub const INLINE: &str = "io.github.firebuild.cache.v1";
/// The version of both documents.
const VERSION: u32 = 1;
/// More records than this are no cache of builds.
const MAX_RECORDS: usize = 1 << 16;
/// Characters of a record's name that are kept.
const MAX_NAME: usize = 200;

#[derive(Debug, Deserialize, Serialize)]
struct Document {
    version: u32,
    /// Diff IDs of the manifest's layers, in their order; an image has them in its configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layers: Vec<Digest>,
    records: Vec<Record>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Record {
    /// 64 hexadecimal digits.
    key: String,
    layer: Digest,
    created: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    /// 64 hexadecimal digits, or nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    also: String,
}

/// What a cache offers.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// Where layers are, by diff ID.
    pub(super) layers: BTreeMap<Digest, Descriptor>,
    /// Records by key; each names one of `layers`.
    pub(super) records: BTreeMap<CacheKey, StepRecord>,
}

/// Reads a manifest with its configuration: a cache of ours, or an image with an inline cache.
///
/// # Errors
/// Why it is neither, for people.
pub(super) fn read(manifest: &Manifest, config: &[u8]) -> Result<Offer, String> {
    let (document, diff_ids) = if manifest.config.media_type == CONFIG {
        let document: Document = serde_json::from_slice(config)
            .map_err(|error| format!("its configuration cannot be read: {error}"))?;
        let diff_ids = document.layers.clone();
        (document, diff_ids)
    } else {
        let config = ImageConfig::parse(config).map_err(|error| error.to_string())?;
        let value = config
            .extra
            .get(INLINE)
            .ok_or("it is an image without an inline cache")?;
        let document = Document::deserialize(value)
            .map_err(|error| format!("its inline cache cannot be read: {error}"))?;
        (document, config.rootfs.diff_ids)
    };
    if document.version != VERSION {
        return Err(format!(
            "it has version {}, this firebuild knows {VERSION}",
            document.version
        ));
    }
    if diff_ids.len() != manifest.layers.len() || diff_ids.len() > MAX_ENTRIES {
        return Err("its configuration and its manifest do not agree about its layers".to_owned());
    }
    if document.records.len() > MAX_RECORDS {
        return Err(format!("it has more than {MAX_RECORDS} records"));
    }
    let layers: BTreeMap<Digest, Descriptor> = diff_ids
        .into_iter()
        .zip(manifest.layers.iter().cloned())
        .collect();
    let mut records = BTreeMap::new();
    for record in document.records {
        // One without its layer is of no use: the layers of an image may have been rewritten.
        let key = cache_key(&record.key)?;
        let also = match record.also.as_str() {
            "" => None,
            text => Some(cache_key(text)?),
        };
        if layers.contains_key(&record.layer) {
            let record = StepRecord {
                key,
                layer: record.layer,
                created: record.created,
                name: record.name.chars().take(MAX_NAME).collect(),
                also,
            };
            records.insert(key, record);
        }
    }
    Ok(Offer { layers, records })
}

fn cache_key(text: &str) -> Result<CacheKey, String> {
    let digest = Digest::from_hex(text).map_err(|_| format!("{text:?} is no cache key"))?;
    Ok(CacheKey(*digest.as_bytes()))
}

/// The configuration of an exported cache with these layers.
pub(super) fn config(layers: &[Digest], records: &[StepRecord]) -> Vec<u8> {
    let document = Document {
        version: VERSION,
        layers: layers.to_vec(),
        records: records.iter().map(|record| entry(record, true)).collect(),
    };
    serde_json::to_vec(&document).expect("numbers, texts and lists have no failing serialisers")
}

/// Puts the records of an image's own layers into its configuration.
pub fn embed(config: &mut ImageConfig, records: &[StepRecord]) {
    let own: Vec<Record> = records
        .iter()
        .filter(|record| config.rootfs.diff_ids.contains(&record.layer))
        .map(|record| entry(record, false))
        .collect();
    let document = Document {
        version: VERSION,
        layers: Vec::new(),
        records: own,
    };
    let value = serde_json::to_value(&document)
        .expect("numbers, texts and lists have no failing serialisers");
    config.extra.insert(INLINE.to_owned(), value);
}

/// Takes away an inline cache that came with the base: it tells nothing about this image.
pub fn strip(config: &mut ImageConfig) {
    config.extra.remove(INLINE);
}

fn entry(record: &StepRecord, named: bool) -> Record {
    Record {
        key: record.key.to_string(),
        layer: record.layer,
        created: record.created,
        // An image has the steps in its history.
        name: if named {
            record.name.clone()
        } else {
            String::new()
        },
        also: record.also.map(|key| key.to_string()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use firebuild_oci::{Descriptor, Digest, ImageConfig, Manifest, Platform, media_type};

    use super::{CONFIG, StepRecord, config, embed, read};
    use crate::key::CacheKey;

    fn record(key: u8, layer: &str) -> StepRecord {
        StepRecord {
            key: CacheKey([key; 32]),
            layer: Digest::of(layer),
            created: 7,
            name: "RUN x".to_owned(),
            also: (key == 2).then_some(CacheKey([1; 32])),
        }
    }

    fn manifest(kind: &str, config: &[u8], layers: &[&str]) -> Manifest {
        let layer = |text: &&str| Descriptor::of(media_type::OCI_LAYER, text.as_bytes());
        Manifest::new(
            Descriptor::of(kind, config),
            layers.iter().map(layer).collect(),
        )
    }

    #[test]
    fn a_cache_is_read_as_it_was_written() {
        let layers = [Digest::of("a"), Digest::of("b")];
        let bytes = config(&layers, &[record(1, "a"), record(2, "b"), record(3, "c")]);
        let offer = read(&manifest(CONFIG, &bytes, &["a", "b"]), &bytes).unwrap();
        assert_eq!(offer.records.len(), 2);
        for (key, layer) in [(1, "a"), (2, "b")] {
            assert_eq!(offer.records[&CacheKey([key; 32])], record(key, layer));
        }
        assert_eq!(offer.layers[&Digest::of("b")].digest, Digest::of("b"));
    }

    #[test]
    fn an_image_carries_the_records_of_its_own_layers() {
        let mut image = ImageConfig::new(Platform::linux("amd64"));
        image.rootfs.diff_ids = vec![Digest::of("a")];
        embed(&mut image, &[record(1, "a"), record(2, "b")]);
        let bytes = image.to_bytes();
        let offer = read(&manifest(media_type::OCI_CONFIG, &bytes, &["a"]), &bytes).unwrap();
        assert_eq!(
            offer.records.keys().collect::<Vec<_>>(),
            [&CacheKey([1; 32])]
        );
    }

    #[test]
    fn what_is_no_cache_says_why() {
        let layers = [Digest::of("a")];
        let good = config(&layers, &[record(1, "a")]);
        let text = String::from_utf8(good.clone()).unwrap();
        let newer = text.replace("\"version\":1", "\"version\":2").into_bytes();
        let key = text.replace("\"0101", "\"zz01").into_bytes();
        let image = ImageConfig::new(Platform::linux("amd64")).to_bytes();
        for (kind, bytes, layers, why) in [
            (CONFIG, &good, vec!["a", "b"], "do not agree"),
            (CONFIG, &newer, vec!["a"], "version 2"),
            (CONFIG, &key, vec!["a"], "no cache key"),
            (CONFIG, &b"{".to_vec(), vec!["a"], "cannot be read"),
            (
                media_type::OCI_CONFIG,
                &image,
                vec![],
                "without an inline cache",
            ),
        ] {
            let error = read(&manifest(kind, bytes, &layers), bytes).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
