"""The names of Dagster's own tags."""

from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG as PARTITION_RANGE_END_TAG
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_START_TAG as PARTITION_RANGE_START_TAG
from dagster._core.storage.tags import BACKFILL_ID_TAG as BACKFILL_TAG
from dagster._core.storage.tags import PARTITION_NAME_TAG as PARTITION_TAG
from dagster._core.storage.tags import PRIORITY_TAG, RESUME_RETRY_TAG, RETRY_NUMBER_TAG
from dagster._utils.tags import is_valid_tag_key as valid_tag_key

__all__ = [
    "BACKFILL_TAG",
    "DATA_VERSION_TAG",
    "PARTITION_RANGE_END_TAG",
    "PARTITION_RANGE_START_TAG",
    "PARTITION_TAG",
    "PRIORITY_TAG",
    "RESUME_RETRY_TAG",
    "RETRY_NUMBER_TAG",
    "valid_tag_key",
]
