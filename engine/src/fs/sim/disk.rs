//! The names, locks and accidents of the simulated disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::inode::Inode;
use super::{OpenMode, Random, Touch, TouchKind, Watch};

pub(super) type Names = BTreeMap<PathBuf, Arc<Mutex<Inode>>>;

enum NameChange {
    Add(PathBuf, Arc<Mutex<Inode>>),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

pub(super) struct Disk {
    seed: u64,
    pub(super) random: Random,
    /// The names as processes see them.
    pub(super) names: Names,
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) locks: BTreeSet<PathBuf>,
    /// Counts crashes; a handle of an earlier one is dead.
    pub(super) boot: u64,
    pub(super) down: bool,
    pub(super) operations: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) fail_sync_at: Option<u64>,
    pub(super) fail_write_at: Option<u64>,
    pub(super) capacity: Option<u64>,
    /// Sees each operation, and says whether the machine goes down in it.
    pub(super) watch: Option<Watch>,
    /// What [`fill_random`](crate::fs::Files::fill_random) draws from; begins anew with each boot.
    pub(super) drawn: Random,
    /// The names on the platter, and what is to be done to them, in order.
    durable_names: Names,
    unsynced_names: Vec<NameChange>,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        let drawn = Random::new(!seed);
        Self {
            seed,
            drawn,
            watch: None,
            random: Random::new(seed),
            names: Names::new(),
            dirs: BTreeSet::new(),
            locks: BTreeSet::new(),
            boot: 0,
            down: false,
            operations: 0,
            crash_at: None,
            fail_sync_at: None,
            fail_write_at: None,
            capacity: None,
            durable_names: Names::new(),
            unsynced_names: Vec::new(),
        }
    }

    pub(super) fn check_up(&self) -> io::Result<()> {
        if self.down { Err(io::Error::other("the simulated machine is down")) } else { Ok(()) }
    }

    /// Counts an operation, and lets it meet the accident that is planned for it.
    pub(super) fn begin(&mut self, touch: &Touch<'_>) -> io::Result<()> {
        self.check_up()?;
        self.operations += 1;
        let ends_here = self.watch.as_mut().is_some_and(|watch| watch(touch));
        if ends_here || self.crash_at == Some(self.operations) {
            self.down = true;
            return self.check_up();
        }
        let fault = match touch.kind {
            TouchKind::Write | TouchKind::SetSize => &mut self.fail_write_at,
            TouchKind::Sync | TouchKind::SyncDir => &mut self.fail_sync_at,
            TouchKind::MakeDir | TouchKind::Create | TouchKind::Rename | TouchKind::Remove => {
                return Ok(());
            }
        };
        if fault.is_some_and(|at| at <= self.operations) {
            *fault = None;
            return Err(io::Error::other("simulated input/output error"));
        }
        Ok(())
    }

    /// Counts a change of names. It is seen at once; whether it survives a crash in its midst is
    /// left to chance, so it goes among the unsynced ones even then.
    fn begin_names(&mut self, change: NameChange) -> io::Result<()> {
        let started = self.begin(&match &change {
            NameChange::Add(path, _) => Touch::of(TouchKind::Create, path),
            NameChange::Rename(from, to) => {
                Touch { to: Some(to), ..Touch::of(TouchKind::Rename, from) }
            }
            NameChange::Remove(path) => Touch::of(TouchKind::Remove, path),
        });
        if started.is_ok() || self.down {
            apply(&mut self.names, &change);
            self.unsynced_names.push(change);
            self.name_inodes();
        }
        started
    }

    /// Tells every file the name that it has now.
    fn name_inodes(&self) {
        for (path, inode) in &self.names {
            inode.lock().path.clone_from(path);
        }
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.check_up()?;
        if !self.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = self.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|p| Some(p.file_name()?.to_str()?.to_owned())).collect())
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<Arc<Mutex<Inode>>> {
        self.check_up()?;
        match (self.names.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => Ok(inode.clone()),
            (None, OpenMode::CreateNew) => {
                if !path.parent().is_some_and(|dir| self.dirs.contains(dir)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let inode = Arc::new(Mutex::new(Inode::default()));
                self.begin_names(NameChange::Add(path.to_path_buf(), inode.clone()))?;
                Ok(inode)
            }
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_named(from)?;
        self.begin_names(NameChange::Rename(from.to_path_buf(), to.to_path_buf()))
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.check_named(path)?;
        self.begin_names(NameChange::Remove(path.to_path_buf()))
    }

    fn check_named(&self, path: &Path) -> io::Result<()> {
        self.check_up()?;
        if self.names.contains_key(path) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.begin(&Touch::of(TouchKind::SyncDir, dir))?;
        let inside = |path: &Path| path.parent() == Some(dir);
        let mut left = Vec::new();
        for change in std::mem::take(&mut self.unsynced_names) {
            let here = match &change {
                NameChange::Add(path, _) | NameChange::Remove(path) => inside(path),
                NameChange::Rename(from, to) => inside(from) || inside(to),
            };
            if here {
                apply(&mut self.durable_names, &change);
            } else {
                left.push(change);
            }
        }
        self.unsynced_names = left;
        Ok(())
    }

    pub(super) fn used(&self) -> u64 {
        self.names.values().map(|inode| inode.lock().seen.len() as u64).sum()
    }

    /// Whether `growth` more bytes fit. `locked` is the file that grows, locked by the caller.
    pub(super) fn check_space(&self, growth: u64, locked: &Inode) -> io::Result<()> {
        let Some(capacity) = self.capacity.filter(|_| growth > 0) else { return Ok(()) };
        let others = self.names.values().filter_map(|inode| inode.try_lock());
        let used: u64 = others.map(|inode| inode.seen.len() as u64).sum();
        if used + locked.seen.len() as u64 + growth > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(super) fn power_cut(&mut self) {
        let survivors = self.random.below(self.unsynced_names.len() as u64 + 1) as usize;
        for change in std::mem::take(&mut self.unsynced_names).iter().take(survivors) {
            apply(&mut self.durable_names, change);
        }
        self.names = self.durable_names.clone();
        for inode in self.names.values() {
            inode.lock().power_cut(&mut self.random);
        }
        self.name_inodes();
        self.start_over();
    }

    pub(super) fn start_over(&mut self) {
        for inode in self.names.values() {
            inode.lock().forget_maps();
        }
        self.boot += 1;
        self.drawn = Random::new(!self.seed);
        self.watch = None;
        self.down = false;
        self.locks.clear();
        self.crash_at = None;
        self.fail_sync_at = None;
        self.fail_write_at = None;
    }

    pub(super) fn flip(&mut self, path: &Path, offset: u64, mask: u8) {
        let inode = self.names.get(path).expect("a file of this name");
        inode.lock().flip(offset, mask);
    }
}

fn apply(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Add(path, inode) => {
            names.insert(path.clone(), inode.clone());
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
    }
}
