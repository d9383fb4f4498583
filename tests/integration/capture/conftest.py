"""A repository for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore
from tests.support.repositories import new_repository


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Making keys from a passphrase is slow on purpose; one repository is enough, its empty folder is copied."""
    return new_repository(tmp_path_factory.mktemp("template") / "repository")


@pytest.fixture
def repository(template: Repository, tmp_path: Path) -> Repository:
    assert isinstance(template.store, DirectoryStore)
    shutil.copytree(template.store.root, tmp_path / "repository")
    return Repository(DirectoryStore(tmp_path / "repository"), template.file, template.keys)
