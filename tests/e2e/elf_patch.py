"""Copies of programs that say something else of themselves than they are: for the tests of what is refused.

Owns: nothing but the copy. Refuses: all but 64-bit little-endian ELF. Layouts: the System V ABI.
"""
import shutil
import struct

SECTION = struct.Struct("<IIQQQQIIQQ")  # sh_name, type, flags, addr, offset, size, link, info, addralign, entsize
SYMBOL = struct.Struct("<IBBHQQ")  # st_name, info, other, shndx, value, size
SHT_SYMTAB, SHT_NOBITS, SHT_DYNSYM = 2, 8, 11


class Copy:
    def __init__(self, source, path):
        shutil.copy(source, path)
        self.path = path
        with open(path, "rb") as f:
            self.data = bytearray(f.read())
        assert self.data[:6] == b"\x7fELF\x02\x01"
        table, = struct.unpack_from("<Q", self.data, 0x28)
        size, count = struct.unpack_from("<HH", self.data, 0x3A)
        self.sections = [SECTION.unpack_from(self.data, table + n * size) for n in range(count)]

    def symbols(self, name):
        """File offsets of every entry of a symbol."""
        for section in self.sections:
            if section[1] not in (SHT_SYMTAB, SHT_DYNSYM):
                continue
            strings = self.sections[section[6]][4]
            for at in range(section[4], section[4] + section[5], SYMBOL.size):
                text = strings + SYMBOL.unpack_from(self.data, at)[0]
                if self.data[text:self.data.index(0, text)] == name.encode():
                    yield at

    def move_symbol(self, name, by):
        for at in self.symbols(name):
            value = SYMBOL.unpack_from(self.data, at)[4]
            struct.pack_into("<Q", self.data, at + 8, value + by)
        return self

    def set_u32(self, name, value):
        """The variable of that name, in a section that the file has bytes of."""
        address = SYMBOL.unpack_from(self.data, next(self.symbols(name)))[4]
        for section in self.sections:
            if section[3] and section[3] <= address < section[3] + section[5] and section[1] != SHT_NOBITS:
                struct.pack_into("<I", self.data, section[4] + address - section[3], value)
                return self
        raise ValueError(f"{name} has no bytes in the file")

    def write(self):
        with open(self.path, "wb") as f:
            f.write(self.data)
        return self.path
