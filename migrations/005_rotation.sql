-- To find what is under an older key-encryption key without reading all.

create index credentials_kek on credentials (kek);
