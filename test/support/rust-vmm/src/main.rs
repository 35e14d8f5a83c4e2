//! A VMM made of rust-vmm's own `vhost`, in cloud-hypervisor's order, with a balloon driver of its own in place of a guest: 64 MiB of
//! memory, split rings. It does what each line of its standard input says and answers with one line; `test/e2e/rust-vmm.check.ts`
//! asks the daemon and compares.
use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::thread::sleep;
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};

const MEMORY: usize = 64 << 20;
const PAGE: usize = 4096;
const SIZE: usize = 64;
const QUEUES: usize = 2;
/// Bits 0 to 23 belong to the kind of device, of which cloud-hypervisor knows nothing; it passes these on.
const PASSES: u64 = 1 << 28 | 1 << 29 | 1 << 32;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const WAIT: Duration = Duration::from_millis(2);
const WAITS: usize = 5000;

type Anything<T> = Result<T, Box<dyn std::error::Error>>;

struct Memory {
    file: File,
    at: *mut u8,
}

impl Memory {
    fn new(bytes: usize) -> Anything<Self> {
        // SAFETY: the name is a C string, and the new descriptor has no other owner.
        let file = unsafe {
            let fd = libc::memfd_create(c"memory".as_ptr(), 0);
            if fd < 0 {
                return Err(io::Error::last_os_error().into());
            }
            File::from_raw_fd(fd)
        };
        file.set_len(bytes as u64)?;
        // SAFETY: a new mapping of a file of that length, which lives as long as the process.
        let at = unsafe {
            libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        Ok(Memory { file, at: at.cast() })
    }

    fn write<T>(&self, gpa: usize, value: T) {
        // SAFETY: all addresses are below 64 MiB and aligned; the daemon reads them at any time.
        unsafe { ptr::write_volatile(self.at.add(gpa).cast(), value) }
    }

    fn read<T: Copy>(&self, gpa: usize) -> T {
        // SAFETY: as in write.
        unsafe { ptr::read_volatile(self.at.add(gpa).cast()) }
    }

    fn allocated(&self) -> Anything<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }
}

/// A split ring at 1 MiB and beyond, with one buffer of at most 1024 pages.
struct Ring {
    kick: EventFd,
    call: EventFd,
    index: usize,
    filled: u16,
}

impl Ring {
    fn new(index: usize) -> Anything<Self> {
        Ok(Ring { kick: EventFd::new(EFD_NONBLOCK)?, call: EventFd::new(EFD_NONBLOCK)?, index, filled: 0 })
    }

    fn descriptors(&self) -> usize {
        (1 << 20) + self.index * (1 << 16)
    }

    fn available(&self) -> usize {
        self.descriptors() + PAGE
    }

    fn used(&self) -> usize {
        self.descriptors() + 2 * PAGE
    }

    fn buffer(&self) -> usize {
        self.descriptors() + 3 * PAGE
    }

    /// Tells the device of pages, and waits for the answer as a driver does.
    fn tell(&mut self, memory: &Memory, pfns: std::ops::Range<u32>) -> Anything<()> {
        let count = pfns.len();
        for (n, pfn) in pfns.enumerate() {
            memory.write(self.buffer() + 4 * n, pfn);
        }
        memory.write(self.descriptors(), self.buffer() as u64);
        memory.write(self.descriptors() + 8, 4 * count as u32);
        memory.write(self.descriptors() + 12, 0u32);
        memory.write(self.available() + 4 + 2 * (self.filled as usize % SIZE), 0u16);
        self.filled = self.filled.wrapping_add(1);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        memory.write(self.available() + 2, self.filled);
        self.kick.write(1)?;
        for _ in 0..WAITS {
            if memory.read::<u16>(self.used() + 2) == self.filled && self.call.read().is_ok() {
                return Ok(());
            }
            sleep(WAIT);
        }
        Err("the device does not answer".into())
    }
}

struct Vmm {
    memory: Memory,
    rings: Vec<Ring>,
    frontend: Frontend,
    features: u64,
}

impl Vmm {
    fn connect(path: &str) -> Anything<Frontend> {
        let frontend = Frontend::connect(path, QUEUES as u64)?;
        frontend.set_owner()?;
        Ok(frontend)
    }

    fn boot(path: &str) -> Anything<Self> {
        let mut frontend = Self::connect(path)?;
        let features = frontend.get_features()? & (PASSES | PROTOCOL_FEATURES);
        frontend.set_features(features)?;
        let protocol = frontend.get_protocol_features()?
            & (VhostUserProtocolFeatures::MQ
                | VhostUserProtocolFeatures::LOG_SHMFD
                | VhostUserProtocolFeatures::REPLY_ACK
                | VhostUserProtocolFeatures::CONFIG);
        frontend.set_protocol_features(protocol)?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        if frontend.get_queue_num()? < QUEUES as u64 {
            return Err("too few queues".into());
        }
        let rings = (0..QUEUES).map(Ring::new).collect::<Anything<Vec<_>>>()?;
        let mut vmm = Vmm { memory: Memory::new(MEMORY)?, rings, frontend, features };
        vmm.start()?;
        Ok(vmm)
    }

    fn config_of(&self, ring: &Ring) -> VringConfigData {
        let at = |gpa: usize| self.memory.at as u64 + gpa as u64;
        VringConfigData {
            queue_max_size: SIZE as u16,
            queue_size: SIZE as u16,
            flags: 0,
            desc_table_addr: at(ring.descriptors()),
            used_ring_addr: at(ring.used()),
            avail_ring_addr: at(ring.available()),
            log_addr: None,
        }
    }

    fn start(&mut self) -> Anything<()> {
        self.frontend.set_features(self.features)?;
        self.frontend.set_mem_table(&[VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: self.memory.at as u64,
            mmap_offset: 0,
            mmap_handle: self.memory.file.as_raw_fd(),
        }])?;
        for ring in &self.rings {
            // All pages of it have their memory before what the guest has is counted.
            for page in (ring.descriptors()..=ring.buffer()).step_by(PAGE) {
                self.memory.write(page, self.memory.read::<u64>(page));
            }
            self.frontend.set_vring_num(ring.index, SIZE as u16)?;
        }
        for ring in &self.rings {
            let config = self.config_of(ring);
            self.frontend.set_vring_addr(ring.index, &config)?;
            self.frontend.set_vring_base(ring.index, self.memory.read::<u16>(ring.available() + 2))?;
            self.frontend.set_vring_call(ring.index, &ring.call)?;
            self.frontend.set_vring_kick(ring.index, &ring.kick)?;
        }
        self.enable(true)
    }

    fn enable(&mut self, on: bool) -> Anything<()> {
        for index in 0..QUEUES {
            self.frontend.set_vring_enable(index, on)?;
        }
        Ok(())
    }

    /// A word of the config space: cloud-hypervisor sends the access of its guest as it is.
    fn config_word(&mut self, at: u32) -> Anything<u32> {
        let (_, payload) = self.frontend.get_config(at, 4, VhostUserConfigFlags::WRITABLE, &[0; 4])?;
        Ok(u32::from_le_bytes(payload.as_slice().try_into()?))
    }

    fn write_actual(&mut self, pages: u32) -> Anything<()> {
        Ok(self.frontend.set_config(4, VhostUserConfigFlags::WRITABLE, &pages.to_le_bytes())?)
    }

    fn begin_log(&mut self) -> Anything<()> {
        let log = Memory::new(PAGE)?;
        let region = VhostUserDirtyLogRegion { mmap_size: PAGE as u64, mmap_offset: 0, mmap_handle: log.file.as_raw_fd() };
        Ok(self.frontend.set_log_base(0, Some(region))?)
    }

    fn does(&mut self, line: &str) -> Anything<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |n: usize| -> Anything<u32> { Ok(words.get(n).ok_or("a number is missing")?.parse()?) };
        match words[0] {
            "fill" => {
                for pfn in number(1)?..number(1)? + number(2)? {
                    self.memory.write(pfn as usize * PAGE, pfn);
                }
            }
            "inflate" => self.rings[0].tell(&self.memory, number(1)?..number(1)? + number(2)?)?,
            "deflate" => self.rings[1].tell(&self.memory, number(1)?..number(1)? + number(2)?)?,
            "actual" => self.write_actual(number(1)?)?,
            "target" => return Ok(self.config_word(0)?.to_string()),
            "allocated" => return Ok(self.memory.allocated()?.to_string()),
            "pause" => self.enable(false)?,
            "resume" => self.enable(true)?,
            "log" => self.begin_log()?,
            "bases" => {
                let bases: Result<Vec<_>, _> = (0..QUEUES).map(|n| self.frontend.get_vring_base(n)).collect();
                return Ok(format!("{:?}", bases?));
            }
            other => return Err(format!("unknown: {other}").into()),
        }
        Ok("done".into())
    }
}

fn main() -> Anything<()> {
    let path = std::env::args().nth(1).ok_or("a socket is missing")?;
    let mut vmm = Vmm::boot(&path)?;
    println!("booted");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let answer = if line == "reboot" {
            // In cloud-hypervisor a reboot of the guest is a new connection after the old one.
            drop(vmm);
            vmm = Vmm::boot(&path)?;
            "done".into()
        } else {
            vmm.does(&line).unwrap_or_else(|error| format!("error: {error}"))
        };
        println!("{answer}");
    }
    Ok(())
}
