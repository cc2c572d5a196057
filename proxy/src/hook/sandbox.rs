//! One compiled module.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use meridian_conflict::hook::{Call, Failure, HashCall, MergeHook, MergedHash, abi};
use meridian_conflict::policy::{HookId, MAX_HOOK_NAME_BYTES};
use wasmi::errors::ErrorKind;
use wasmi::{
    CompilationMode, Config, EnforcedLimits, Engine, ExternType, Instance, Linker, Memory, Module, Store,
    StoreLimits, StoreLimitsBuilder, TrapCode, ValType,
};

/// The largest module that is loaded.
pub const MAX_MODULE_BYTES: u64 = 4 << 20;

/// What decides, besides the module, what a call does: raised when the interpreter charges fuel
/// differently or the ABI changes.
const ENGINE: &[u8] = b"meridian hook abi 1, wasmi 2";

/// The linear memory, exported.
const MEMORY: &str = "memory";

/// `alloc(bytes: i32) -> i32`: room for the call.
const ALLOC: &str = "alloc";

/// `merge(at: i32, bytes: i32) -> i64`: see [`abi`].
const MERGE: &str = "merge";

/// `merge_hash(at: i32, bytes: i32) -> i64`: see [`abi`].
const MERGE_HASH: &str = "merge_hash";

/// What `merge` and `merge_hash` return for "not mine".
const DECLINED: i64 = -1;

/// How deep functions may call each other.
const MAX_RECURSION: usize = 256;

/// What one call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fuel (about one a simple instruction) whatever the call.
    pub fuel: u64,
    /// More fuel for each byte of the call.
    pub fuel_per_byte: u64,
    /// Linear memory in bytes.
    pub memory: usize,
    /// Bytes of the call.
    pub input: usize,
    /// Bytes of the answer.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fuel: 1_000_000, fuel_per_byte: 64, memory: 16 << 20, input: 1 << 20, output: 1 << 20 }
    }
}

/// A module cannot be used as a hook. Nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Larger than [`MAX_MODULE_BYTES`].
    #[error("has more than the {MAX_MODULE_BYTES} bytes accepted")]
    TooBig,
    /// No WebAssembly, or of a kind that is not accepted.
    #[error("is no WebAssembly module that can be run here: {0}")]
    Malformed(Box<str>),
    /// The module asks for something of the world.
    #[error("imports {module}.{name}: a hook has nothing but its call")]
    Import {
        /// From where.
        module: Box<str>,
        /// What.
        name: Box<str>,
    },
    /// An export is missing or of another type.
    #[error("does not export {0}")]
    Export(&'static str),
    /// The module cannot even be instantiated within the limits.
    #[error("cannot be started: {0}")]
    Start(Failure),
}

/// A merge hook in a sandbox. Cheap to share, callable from any thread.
#[derive(Debug)]
pub struct Sandbox {
    id: HookId,
    limits: Limits,
    engine: Engine,
    module: Module,
    merges_values: bool,
    merges_hashes: bool,
}

impl Sandbox {
    /// Loads the module in the file `path` and names the hook after it.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(path: &Path, limits: Limits) -> Result<Self, LoadError> {
        let mut module = Vec::new();
        File::open(path)?.take(MAX_MODULE_BYTES + 1).read_to_end(&mut module)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Self::new(&name, &module, limits)
    }

    /// A hook called `name` from a module, in binary or text.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn new(name: &str, module: &[u8], limits: Limits) -> Result<Self, LoadError> {
        if module.len() as u64 > MAX_MODULE_BYTES {
            return Err(LoadError::TooBig);
        }
        let engine = Engine::new(&config());
        let identity = identity(module, limits);
        let malformed = |error: wasmi::Error| LoadError::Malformed(error.to_string().into());
        let module = Module::new(&engine, module).map_err(malformed)?;
        if let Some(import) = module.imports().next() {
            let (module, name) = (import.module().into(), import.name().into());
            return Err(LoadError::Import { module, name });
        }
        if !matches!(module.get_export(MEMORY), Some(ExternType::Memory(_))) {
            return Err(LoadError::Export(MEMORY));
        }
        if !exports(&module, ALLOC, &[ValType::I32], ValType::I32) {
            return Err(LoadError::Export(ALLOC));
        }
        let [merges_values, merges_hashes] =
            [MERGE, MERGE_HASH].map(|name| exports(&module, name, &[ValType::I32; 2], ValType::I64));
        if !merges_values && !merges_hashes {
            return Err(LoadError::Export(MERGE));
        }
        let fits = name.char_indices().take_while(|(at, c)| at + c.len_utf8() <= MAX_HOOK_NAME_BYTES);
        let name: String = fits.map(|(_, c)| c).collect();
        let id = HookId { name: name.into(), identity };
        let hook = Self { id, limits, engine, module, merges_values, merges_hashes };
        hook.start(0).map_err(LoadError::Start)?;
        Ok(hook)
    }

    /// A fresh instance with the fuel for a call of so many bytes.
    fn start(&self, bytes: usize) -> Result<Running, Failure> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(self.limits.memory)
            .table_elements(self.limits.memory / size_of::<usize>())
            .memories(1)
            .trap_on_grow_failure(true)
            .build();
        let mut store = Store::new(&self.engine, limits);
        store.limiter(|limits| limits);
        let more = self.limits.fuel_per_byte.saturating_mul(bytes as u64);
        store.set_fuel(self.limits.fuel.saturating_add(more)).map_err(|error| failure(&error))?;
        let linker = Linker::new(&self.engine);
        let instance =
            linker.instantiate_and_start(&mut store, &self.module).map_err(|error| starting(&error))?;
        let memory = instance.get_memory(&store, MEMORY).ok_or(Failure::BadExport)?;
        Ok(Running { store, instance, memory })
    }

    fn call(&self, function: &str, input: &[u8]) -> Result<Vec<u8>, Failure> {
        if input.len() > self.limits.input {
            return Err(Failure::InputTooBig);
        }
        let mut running = self.start(input.len())?;
        let at = running.put(input)?;
        let length = i32::try_from(input.len()).map_err(|_| Failure::InputTooBig)?;
        let returned = running.function::<(i32, i32), i64>(function)?;
        let returned = returned.call(&mut running.store, (at, length)).map_err(|error| failure(&error))?;
        if returned == DECLINED {
            return Err(Failure::Declined);
        }
        running.answer(returned, self.limits.output)
    }
}

/// One instance in use.
struct Running {
    store: Store<StoreLimits>,
    instance: Instance,
    memory: Memory,
}

impl Running {
    fn function<P: wasmi::WasmParams, R: wasmi::WasmResults>(
        &self,
        name: &str,
    ) -> Result<wasmi::TypedFunc<P, R>, Failure> {
        self.instance.get_typed_func(&self.store, name).map_err(|_| Failure::BadExport)
    }

    /// Copies the call into memory that the hook gives for it; returns where.
    fn put(&mut self, input: &[u8]) -> Result<i32, Failure> {
        let length = i32::try_from(input.len()).map_err(|_| Failure::InputTooBig)?;
        let alloc = self.function::<i32, i32>(ALLOC)?;
        let at = alloc.call(&mut self.store, length).map_err(|error| failure(&error))?;
        // An address is unsigned; where the room is not inside the memory nothing is written.
        self.memory
            .write(&mut self.store, at.cast_unsigned() as usize, input)
            .map_err(|_| Failure::BadOutput)?;
        Ok(at)
    }

    /// The bytes that the returned number names: where in its high half, how many in its low half.
    fn answer(&self, returned: i64, most: usize) -> Result<Vec<u8>, Failure> {
        let returned = returned.cast_unsigned();
        let (at, length) = ((returned >> 32) as usize, (returned & u64::from(u32::MAX)) as usize);
        if length > most {
            return Err(Failure::OutputTooBig);
        }
        let data = self.memory.data(&self.store);
        let bytes = data.get(at..).and_then(|rest| rest.get(..length));
        bytes.map(<[u8]>::to_vec).ok_or(Failure::BadOutput)
    }
}

impl MergeHook for Sandbox {
    fn id(&self) -> &HookId {
        &self.id
    }

    fn merge(&self, call: &Call<'_>) -> Result<Vec<u8>, Failure> {
        if !self.merges_values {
            return Err(Failure::BadExport);
        }
        let mut input = Vec::new();
        abi::encode_call(call, &mut input);
        self.call(MERGE, &input)
    }

    fn merges_values(&self) -> bool {
        self.merges_values
    }

    fn merges_hashes(&self) -> bool {
        self.merges_hashes
    }

    fn merge_hash(&self, call: &HashCall<'_>) -> Result<MergedHash, Failure> {
        if !self.merges_hashes {
            return Err(Failure::BadExport);
        }
        let mut input = Vec::new();
        abi::encode_hash_call(call, &mut input);
        abi::decode_merged_hash(&self.call(MERGE_HASH, &input)?)
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config
        .consume_fuel(true)
        .compilation_mode(CompilationMode::Eager)
        .ignore_custom_sections(true)
        .enforced_limits(EnforcedLimits::strict())
        .set_max_recursion_depth(MAX_RECURSION);
    config
}

fn identity(module: &[u8], limits: Limits) -> [u8; 32] {
    let Limits { fuel, fuel_per_byte, memory, input, output } = limits;
    let mut hasher = blake3::Hasher::new();
    hasher.update(ENGINE);
    for number in [fuel, fuel_per_byte, memory as u64, input as u64, output as u64, MAX_RECURSION as u64] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(module);
    *hasher.finalize().as_bytes()
}

fn exports(module: &Module, name: &str, params: &[ValType], result: ValType) -> bool {
    match module.get_export(name) {
        Some(ExternType::Func(ty)) => ty.params() == params && ty.results() == [result],
        _ => false,
    }
}

fn failure(error: &wasmi::Error) -> Failure {
    match error.as_trap_code() {
        Some(TrapCode::OutOfFuel) => Failure::Fuel,
        Some(TrapCode::GrowthOperationLimited | TrapCode::OutOfSystemMemory) => Failure::Memory,
        _ => Failure::Trap,
    }
}

/// Why an instance did not start: besides what may happen in its start function, its first memory
/// may be larger than allowed.
fn starting(error: &wasmi::Error) -> Failure {
    match error.kind() {
        ErrorKind::Memory(_) | ErrorKind::Table(_) | ErrorKind::Instantiation(_) => Failure::Memory,
        _ => failure(error),
    }
}
