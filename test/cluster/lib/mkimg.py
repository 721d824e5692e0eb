#!/usr/bin/env python3
"""mkimg.py OUT.tar NAME:TAG[,NAME:TAG] FOLDER|LAYER.tar [CONFIG]: an image archive of one layer, for `ctr images import`."""
import hashlib
import io
import json
import os
import platform
import sys
import tarfile

out, names, source, *config = sys.argv[1:]
layer = out + ".layer" if os.path.isdir(source) else source
if layer != source:
    with tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(source, arcname=".")
with open(layer, "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
image = json.dumps(
    {
        "architecture": architecture,
        "os": "linux",
        "config": json.loads(config[0]) if config else {},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
        "history": [{"created_by": "mkimg.py"}],
    }
).encode()
image_name = hashlib.sha256(image).hexdigest() + ".json"
manifest = [{"Config": image_name, "RepoTags": names.split(","), "Layers": [digest + ".tar"]}]
with tarfile.open(out, "w") as archive:
    for name, content in ((image_name, image), ("manifest.json", json.dumps(manifest).encode())):
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    archive.add(layer, arcname=digest + ".tar")
if layer != source:
    os.unlink(layer)
