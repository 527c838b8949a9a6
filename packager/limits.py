"""How much of anything that comes from outside is read, with the reason of each number.

Every limit lies far above what genuine files have and is looked at before work that grows with what
it bounds. With them a foreign input of N bytes costs time and memory in proportion to N: memory at
most `BYTES_PER_BYTE` times N.
"""

from __future__ import annotations

BYTES_PER_BYTE = 100
"""What the worst JSON costs of memory per byte of text: `{"":[]},` makes an object of 184 bytes, a
list of 56 and two places in lists out of eight bytes; twice that while a reader makes something of
it. Measured by tests/test_limits.py."""

JSON_CONTAINERS = 1_000_000
"""Objects and lists of one JSON text. tokenizer.json of Qwen3.5 has 250,000 (one per merge)."""
JSON_VALUES = 4_000_000
"""Commas of one JSON text, with those in its strings. tokenizer.json of Qwen3.5 has 1,000,000."""

TENSORS = 1 << 19
"""Tensors of one file. The largest Qwen, of 512 single experts in each layer, has 141,312 in all
of its shards together."""
TENSOR_NAME_CHARACTERS = 512
"""Name of a tensor. The longest genuine one, of an adapter that PEFT saved, has 110."""
LAYERS = 1 << 10
"""Layers of a decoder. The largest Qwen has 94."""
TOWER_WIDTH = 1 << 16
"""Any width of a vision tower or an audio encoder, and its learned positions. The largest Qwen has
5,120."""
EXPERTS = 1 << 12
"""Experts of a layer. The largest Qwen has 512."""

TEXT_BYTES = 128_000_000
"""tokenizer.json, the index of the shards, vocab.json, merges.txt, qwen.tiktoken. The largest
genuine one has 20 MB."""
SETTINGS_BYTES = 16 << 20
"""config.json and the other settings. tokenizer_config.json with its template and a thousand added
tokens has 0.2 MB."""
LICENSE_BYTES = 4 << 20
"""A licence or a notice. The GPL has 35 kB, the notices of a whole browser 2 MB."""
TEMPLATE_BYTES = 1 << 20
"""A chat template. Qwen's have 2 to 8 kB."""
FOLDER_NAMES = 100_000
"""Names of a folder that is looked through. The largest checkpoint has 200."""
TOKEN_BYTES = 1 << 10
"""A token of qwen.tiktoken. The longest genuine one has 128 bytes, all of them spaces."""

ADAPTER_BYTES = 64 << 30
"""Weights of an adapter. Rank 64 in 16 bits on every expert of the largest Qwen makes 60 GB."""
ADAPTER_CONFIG_BYTES = 1 << 20
"""adapter_config.json. One that names every module by itself has 0.2 MB."""
PATTERNS = 1 << 12
"""Patterns of an adapter's modules in one table. A rank of its own for each matrix of the largest
dense Qwen takes 560."""
PATTERN_CHARACTERS = 200
"""A pattern of an adapter's modules. Those in PEFT's documentation have 20 to 60."""
PATTERN_STEPS = 60_000_000
"""Steps of all patterns over the names of all modules, at most: two seconds. A rank of its own for
each of 448 modules takes 15,000,000."""

CARD_BYTES = 1 << 20
"""README.md of a checkpoint. Those of Qwen have 5 to 30 kB."""
FRONT_MATTER_BYTES = 1 << 16
"""The YAML in front of a README.md. Those of Qwen have 0.5 kB."""
YAML_EVENTS = 10_000
"""Events of the YAML parser, two for each list and mapping and one for each scalar."""
YAML_DEPTH = 20
"""Lists and mappings within each other: the parser looks at all of them with every sign."""

TOML_CHARACTERS = 1 << 20
"""A device file or a list of use cases. The largest of ours has 20 kB."""
TOML_DOTS = 100
"""Dots in one line of it, as in a dotted key."""

MATRIX_KEYS = 1 << 10
"""Keys of an importance matrix in GGUF. llama-imatrix writes five."""
MATRIX_ITEMS = 1 << 16
"""Items of an array in it. llama-imatrix writes one text per data set; the gguf package makes an
object of a hundred bytes and more of each."""
MATRIX_ENTRIES = 1 << 16
"""Matrices of weights of one model: stacks of experts count once, so 94 layers have 1,000."""
MATRIX_BYTES = 4 << 30
"""The file. 512 experts in 60 layers make 1.5 GB."""

GGUF_HEADER_BYTES = 64 << 20
"""Keys and table of the tensors of a GGUF. A vocabulary of 248,320 tokens with its merges makes
12 MB."""
GGUF_KEYS = 1 << 10
"""Keys of a GGUF. Published ones have 30 to 60."""
GGUF_ITEMS = 1 << 20
"""Items of a list in it. The largest vocabulary of a Qwen has 248,320 tokens."""

MANIFEST_BYTES = 16 << 20
"""manifest.json. With a hundred measurements it has 1 MB."""
PACKAGE_FILES = 10_000
"""Files of a package. One of a hundred shards has 110."""
PATH_BYTES, PATH_PARTS = 1 << 10, 32
"""A path in a package, and the folders and the name in it. Ours have two parts and 60 bytes."""
ARCHIVE_MEMBERS = 2 * PACKAGE_FILES
"""Members of an archive: a folder may stand before each of its files."""
EXTENDED_HEADERS = 8
"""Extended headers before one member of a tar: a path, a size and times fit into one."""
ZIP_DIRECTORY_BYTES = 4 << 20
"""The list of files of a zip: 10,000 rows of 46 bytes and a path of 300."""
EXPANSION = 200
"""How many times its archive a package may be. Weights shrink by a tenth, papers to a fifth; a
file of zeros shrinks to a tenth of a thousandth."""
EXPANSION_FREE = 64 << 20
"""Bytes of a package of which nobody asks how far they shrank."""

HUB_ANSWER_BYTES = 32 << 20
"""An answer of a hub that is not a file. What it says of a repository with 200 files is 0.1 MB."""
HUB_PACKED_BYTES = 1 << 18
"""The same while it is compressed: gzip makes at most a thousand times of it."""

DEVICE_ANSWER_BYTES = 8 << 20
"""What one command on a device prints. The files of a server of 512 cores have 0.5 MB."""
DEVICE_WORD_CHARACTERS = 200
"""A name that a device gives itself or a part of it."""
AGENT_LINE_BYTES = 16 << 20
"""A line of an agent. The ids of a text of a million tokens have 7 MB."""
PICTURE_BYTES = 128 << 20
"""A picture's file. A photograph of 50 million pixels has 30 MB as JPEG and 100 MB as PNG."""
PICTURE_PIXELS = 1 << 26
"""Width times height, or those of all its canvas where it moves. Telephones take 50 million; a
model looks at 4 million at most, and makes what is larger smaller."""
PICTURE_SIDE = 1 << 14
"""Pixels of a side. The widest screenshots of long pages have 16,000; WebP holds 16,383."""
PICTURE_LEAST_SIDE = 8
"""Pixels of a side at least: half of the patch of 14 or 16 that a model looks at as one."""
PICTURE_RATIO = 200
"""How many times its one side the other may be: the published processors refuse more
(transformers, image_processing_qwen2_vl.py, smart_resize)."""
PICTURE_FRAMES = 10_000
"""Frames of one that moves, of which the first is taken. A long animation has a thousand."""
PICTURE_CHUNKS = 1 << 17
"""Parts of its container. A large PNG has 30,000 of 4 kB."""
PICTURE_SCANS = 100
"""Scans of a progressive JPEG, each of which goes over all of its pixels. Usual are ten."""
PICTURES = 64
"""Pictures of one question. As many as fill a context of 4,096 with the smallest of them."""
SOUND_BYTES = 2 << 30
"""A sound's file. Two hours of a CD have 1.27 GB as WAV and half of that as FLAC."""
SOUND_SECONDS = 7200
"""Length of a sound: two hours, 460 MB of samples. Hours of silence are a few kilobytes as FLAC."""
SERVED_SOUND_SECONDS = 3600
"""Length of a sound in a request: its 230 MB of samples stay in the server's memory until it is
written down. A recording of an hour has 14 MB as MP3 for speech."""
SOUND_RATES = (4_000, 384_000)
"""Samples per second. Telephones have 8,000, studios 192,000."""
SOUND_CHANNELS = 32
"""Channels. Cinemas have 12 to 24."""
SOUND_PEAK = 1e4
"""The largest sample where full scale is 1."""
