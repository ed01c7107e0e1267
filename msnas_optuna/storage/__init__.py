"""Opens storages and studies, and holds the name of every key that the package stores."""

from msnas_optuna.storage.claims import claim_trial as claim_trial
from msnas_optuna.storage.curves import read_curves as read_curves, write_curve as write_curve
from msnas_optuna.storage.failures import (
    StorageFailures as StorageFailures,
    in_words as in_words,
    is_of_storage as is_of_storage,
)
from msnas_optuna.storage.heartbeats import heartbeat as heartbeat
from msnas_optuna.storage.opening import StorageError as StorageError, open_storage as open_storage
from msnas_optuna.storage.passwords import (
    has_secret as has_secret,
    is_word as is_word,
    redact as redact,
)
from msnas_optuna.storage.proxy import serve_storage as serve_storage
from msnas_optuna.storage.records import (
    CONFIG as CONFIG,
    DETECTIONS as DETECTIONS,
    ERROR as ERROR,
    EXTERNAL as EXTERNAL,
    GENERATION as GENERATION,
    IMPORT as IMPORT,
    INTERRUPTED as INTERRUPTED,
    LAYOUT as LAYOUT,
    LAYOUT_VERSION as LAYOUT_VERSION,
    OBJECTIVE as OBJECTIVE,
    ORIGIN as ORIGIN,
    OWNER as OWNER,
    PLAN as PLAN,
    PUBLISHED as PUBLISHED,
    QUEUED as QUEUED,
    QUEUED_REPEAT as QUEUED_REPEAT,
    REPEAT as REPEAT,
    SHOWN as SHOWN,
    WITHDRAWN as WITHDRAWN,
    Plan as Plan,
    TrialRecord as TrialRecord,
    Worker as Worker,
    identify as identify,
    is_retry as is_retry,
    is_withdrawn as is_withdrawn,
    known_params as known_params,
    owner_of as owner_of,
    read_plan as read_plan,
    read_record as read_record,
    read_versions as read_versions,
    repeat_of as repeat_of,
    repeated as repeated,
    slots_of as slots_of,
    study_ids as study_ids,
    versions as versions,
    wanted_trials as wanted_trials,
    write_error as write_error,
    write_plan as write_plan,
    write_record as write_record,
    write_versions as write_versions,
    write_wanted as write_wanted,
)
from msnas_optuna.storage.recovery import (
    MAX_RETRY as MAX_RETRY,
    PATIENCE as PATIENCE,
    POLL_SECONDS as POLL_SECONDS,
    Sightings as Sightings,
    finished_slots as finished_slots,
    mark_interrupted as mark_interrupted,
    n_slots as n_slots,
    outstanding_trials as outstanding_trials,
    recover_lost_trials as recover_lost_trials,
    release_own_trials as release_own_trials,
    withdraw as withdraw,
    withdraw_claimed as withdraw_claimed,
    would_notice_death as would_notice_death,
)
from msnas_optuna.storage.studies import (
    StudyMismatchError as StudyMismatchError,
    flatten as flatten,
    is_external as is_external,
    open_study as open_study,
    refuse_mixed as refuse_mixed,
    require_config as require_config,
    require_usable as require_usable,
)
from msnas_optuna.storage.unfinished import (
    UnfinishedTrial as UnfinishedTrial,
    end_trials as end_trials,
    holders as holders,
    unfinished_trials as unfinished_trials,
)
from msnas_optuna.storage.urls import (
    is_storage_url as is_storage_url,
    relative_to as relative_to,
    sqlite_url as sqlite_url,
    storage_exists as storage_exists,
    storage_file as storage_file,
)
