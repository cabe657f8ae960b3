"""Every bound that a request, a value or a stream meets. Sizes in bytes unless the name says otherwise (G15.1)."""

KIB = 1024
MIB = 1024 * KIB

JSON_BODY_MAX = 1 * MIB
"""Largest JSON request body."""

CALL_BODY_MAX = 1 * MIB + 64 * KIB
"""Largest call body: one value of `VALUE_MAX` and its head."""

VALUE_MAX = 1 * MIB
"""Largest encoded argument list or result that travels whole; a larger one is uploaded first (`apothic.wire.large`)."""

LARGE_VALUE_MAX = 5 * 1024 * MIB
"""Largest value that is uploaded."""

LARGE_VALUES_GB, LARGE_VALUES_GB_MAX = 200, 1_048_576
"""GiB of large values that an org may keep; more answer 507 `large_values_full` until old ones were removed."""

VALUE_INLINE_MAX = 64 * KIB
"""Values up to here live in the job's row; above, in the blob store."""

ITEM_BATCH_BYTES = 64 * KIB
"""A batch of items leaves the runtime once it has this size; one item may make it as large as `VALUE_MAX` and more."""

ITEM_BATCH_MAX = VALUE_MAX + 64 * KIB
"""Largest batch of items, with what stands between them."""

ITEM_OVERHEAD = 16
"""Bytes that each item counts beside its own, so that a window bounds the number of items too."""

ITEM_WINDOW_BYTES = 4 * MIB
"""Bytes of items that an attempt may have on the way; a generator waits in `yield` beyond it (G5.4)."""

ITEMS_UNREAD_MAX = 4 * MIB
"""Bytes of items that an attached reader may be behind before its generator is paused (G5.4)."""

ITEMS_KEPT_MAX = 1024 * MIB
"""Bytes of items kept of one job; beyond it the oldest go (G5.4)."""

CHUNK_ITEMS_MAX = 2_000
"""Items of a map that one attempt executes; statements of the store know it too."""

CHUNK_INPUTS_MAX = 64 * KIB
"""Packed arguments of a chunk of several items; one item alone may have a value of `VALUE_MAX`."""

CHUNK_OUTCOMES_MAX = 1 * MIB
"""A chunk whose packed outcomes have this size gives its other items back; the last outcome may go beyond it."""

CHUNK_OUTPUT_MAX = 256 * KIB
"""A chunk whose items wrote so much gives its other items back, so that little is kept until it ends."""

GROUP_ITEMS_MAX = 10_000_000
"""Items of one group."""

GROUP_WAITING_BYTES_MAX = 64 * MIB
"""Inputs of a group that are stored and were not given to a runner yet; more answers 429 `group_full` (G15.2)."""

GROUP_KEY_LENGTH_MAX = 128
"""Characters of the key that a client names a group by."""

ARCHIVE_PACKED_MAX = 512 * MIB
ARCHIVE_UNPACKED_MAX = 2048 * MIB
ARCHIVE_ENTRIES_MAX = 50_000
ARCHIVE_PARTS_MAX = 8_000
ARCHIVE_PARTS_NEW_MAX = 8 * MIB
"""Parts, and bytes of the new ones, of an archive that is sent as parts of another one; more is sent whole."""
MANIFEST_FILES_MAX = 2_000
"""Files whose digests a deployment tells; with more it tells none, so that its record stays small."""
FILE_PATH_MAX = 1_024

JSON_DEPTH_MAX = 64
HEADER_BLOCK_MAX = 16 * KIB

NAME_LENGTH_MAX = 63
"""Names of apps and workers; see `apothic.wire.names`."""

JOIN_TOKEN_S_MIN, JOIN_TOKEN_S_DEFAULT, JOIN_TOKEN_S_MAX = 60, 3_600, 86_400
"""Life of a token that a worker joins with, in seconds."""

FUNCTION_NAME_LENGTH_MAX = 128
FUNCTIONS_PER_APP_MAX = 1_000
FUNCTION_SPEC_MAX = 64 * KIB

LOG_LINE_MAX = 16 * KIB
"""Longest log line in one event; longer ones are split and marked (G5.8)."""

LOG_BYTES_PER_SECOND_MAX = 1 * MIB
"""Log bytes kept per job and second; what is dropped is counted in an event (G5.8)."""

LOG_PAGE_LINES_MAX = 1_000
LIST_PAGE_MAX = 200
LIST_PAGE_DEFAULT = 50

ERROR_TEXT_MAX = 64 * KIB
"""Longest traceback kept; the middle is cut out and the cut is marked."""

ERROR_MESSAGE_MAX = 8 * KIB
ERROR_CAUSES_MAX = 8

WAIT_S_MAX = 60
"""Longest server-side wait of a JSON answer; the streamed answer waits without a limit."""

KEEP_ALIVE_S = 15.0
"""Silence after which a streamed answer carries a keep-alive record."""

QUEUED_JOBS_PER_ORG_MAX = 1_000_000
PENDING_PER_FUNCTION_DEFAULT = 100
"""`max_pending_tasks`: single calls that may wait on one function."""

INFRASTRUCTURE_LOSSES_MAX = 8
"""Grants lost to workers, hosts and drains before a job ends `failed` with `worker_lost` (G2.3)."""

TIMEOUT_S_MAX = 7 * 86_400
"""Largest value of every time limit of a function."""

QUEUE_TIMEOUT_S_DEFAULT = 86_400
STARTUP_TIMEOUT_S_DEFAULT = 60

DISCONNECT_GRACE_S_MAX = 86_400
"""A day: so long a job may hang on a worker that is gone for good."""
DISK_FLOOR_MB, DISK_FLOOR_MB_MAX = 1_024, 1_048_576
"""Free MiB of a disk below which no new work is taken, and what writes most is stopped (G14.2)."""

CPU_MAX = 1_024
MEMORY_MB_MIN = 32
MEMORY_MB_MAX = 16 * 1024 * 1024
TASKS_PER_CONTAINER_MAX = 1_000
BATCH_SIZE_MAX = 1_000
BATCH_WAIT_MS_MAX = 600_000
"""Bounds of `BatchingSpec`: calls of one batch, and how long the first of them waits for others."""
CONTAINERS_MAX = 10_000
RETRIES_MAX = 100

LINK_CREDITS = 256
"""Attempts a worker takes before it has finished one."""

FORERUNNERS_MAX = 16
"""Dead starts that a worker tells of."""

LINK_FRAME_MAX = 16 * MIB
"""Largest link frame; a sender splits its lists well below it."""

READY_WAIT_S_DEFAULT = 1_800.0
"""How long one waits for a deployment to be ready, unless told otherwise: as long as a worker builds at most."""

READY_WAIT_S_MAX = 86_400.0
